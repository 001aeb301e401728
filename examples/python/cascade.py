"""Everything in int8, the best in f32, near copies out, variety last; all within a second: python examples/python/cascade.py"""

from jointly import Cascade, CrossEncoder, Distinct, Mmr, Rescore

QUERY = "how strong is the bite of a jaguar"
DOCUMENTS = [
    "Tomatoes do best in full sun.",
    "A jaguar can bite through a turtle's shell; no other big cat bites harder for its size.",
    "The Jaguar E-Type reached 150 miles an hour.",
    "A jaguar can bite through a turtle's shell; no other big cat bites harder for its size!",
    "Jaguars kill by biting through the skull of their prey, where other cats go for the throat.",
    "The bite of a jaguar was measured at about 1500 newtons at the canine teeth.",
]

cascade = Cascade(
    [
        Rescore(model=CrossEncoder(precision="int8"), keep=4),
        Rescore(model=CrossEncoder()),
        Distinct(),
        Mmr(keep=3, lambda_=0.7, similarity="shingles:1", min_max=True),
    ],
    ms=1000,
)
outcome = cascade.run(QUERY, DOCUMENTS)
for stage in outcome.stages:
    print(f"{stage.name}: {stage.incoming} in, {stage.kept} kept, {stage.ms:.1f} ms {' '.join(stage.notes)}")
for hit in outcome.best:
    print(DOCUMENTS[hit.index])
