"""Rerank with the model in the package, and say which part of a long document was best: python examples/python/rerank.py"""

from jointly import CrossEncoder

QUERY = "how strong is the bite of a jaguar"
DOCUMENTS = [
    "Tomatoes do best in full sun.",
    "Jaguars live from Mexico to Argentina, near water. " * 40 + "A jaguar can bite through a turtle's shell.",
    "The Jaguar E-Type reached 150 miles an hour.",
]

model = CrossEncoder()
for hit in model.rerank(QUERY, DOCUMENTS, long="windows"):
    start, end = hit.span or (0, 0)
    print(f"{hit.score:.4f} {DOCUMENTS[hit.index][start:end][-60:]!r}")
