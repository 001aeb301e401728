//! Files as people write them, and what is said about wrong ones.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use jointly::rank::{Request, Scorer, Similarity};
use jointly::{Precision, Score, ScoreScale};
use jointly_cascade::{
    CascadeFile, Error, ModelSpec, Models, OnePassSpec, SameSpec, SharedScorer, SharedStage, SimilaritySpec,
    StageSpec,
};

/// Scores by the number that a document begins with, times what the model is called.
struct Numbers(f32);

impl Scorer for Numbers {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Logit
    }

    fn score(&self, _: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let score = |document: &&str| {
            let logit = self.0 * document.split(' ').next().unwrap().parse::<f32>().unwrap();
            Score {
                logit,
                score: logit,
                probability: None,
                tokens: 4,
                truncated: false,
                windows: 1,
                span: None,
            }
        };
        Ok(documents.iter().map(score).collect())
    }
}

#[derive(Default)]
struct Named(Vec<ModelSpec>);

impl Models for Named {
    type Error = Error;

    fn scorer(&mut self, model: &ModelSpec) -> Result<SharedScorer, Error> {
        self.0.push(model.clone());
        Ok(Arc::new(Numbers(model.model.parse().unwrap())))
    }

    fn likeness(&mut self, name: &str) -> Result<Box<dyn Similarity + Send>, Error> {
        Err(Error::File { file: name.into(), problem: "no bi-encoder here".into() })
    }

    fn one_pass(&mut self, spec: &OnePassSpec) -> Result<SharedStage, Error> {
        Err(Error::File { file: spec.model.model.clone(), problem: format!("{:?}", spec.options()) })
    }
}

fn order(text: &str, documents: &[&str]) -> (Vec<usize>, usize) {
    let cascade = CascadeFile::parse("test", text).unwrap().build(&mut Named::default()).unwrap();
    let outcome = cascade.run(&Request::new("q", documents)).unwrap();
    (outcome.hits.iter().map(|hit| hit.index).collect(), outcome.kept)
}

#[test]
fn a_file_becomes_a_cascade() {
    let text = r#"
        [budget]
        tokens = 1000

        [[stage]]
        model = "1"
        keep = 3

        [[stage]]
        model = "-1"
        precision = "int8"
        max_length = 128
        depth = 2
        instruction = "the smaller the better"

        [[stage]]
        kind = "distinct"
        similarity = "shingles:1"
        limit = 0.5

        [[stage]]
        kind = "mmr"
        keep = 2
        lambda = 1.0
        min_max = true
    "#;
    let documents = ["1 a", "5 b", "3 c", "4 d"];
    // 5, 4, 3 are kept; 4 and 5 are turned round and kept.
    assert_eq!(order(text, &documents), (vec![3, 1, 2, 0], 2));
    let file = CascadeFile::parse("test", text).unwrap();
    let mut models = Named::default();
    file.build(&mut models).unwrap();
    assert_eq!(models.0.len(), 2);
    assert_eq!(models.0[0].precision.precision(), Some(Precision::F32));
    assert_eq!(models.0[1].precision.precision(), Some(Precision::Int8));
    assert_eq!(
        (models.0[1].max_length, models.0[1].instruction.as_deref()),
        (Some(128), Some("the smaller the better"))
    );
    let StageSpec::Distinct(spec) = &file.stages[2] else { panic!() };
    assert_eq!(spec.similarity, SimilaritySpec::Shingles(1));
}

#[test]
fn a_list_in_one_pass_and_documents_two_by_two() {
    let file = "[[stage]]\nkind = \"one-pass\"\nmodel = \"lists\"\nblock = 7\ndepth = 9\ninstruction = \"x\"\nkeep = 2\n";
    let file = CascadeFile::parse("test", file).unwrap();
    assert!(file.stages[0].models().is_empty());
    let told = file.build(&mut Named::default()).unwrap_err().to_string();
    for part in ["lists", "block: 7", "depth: Some(9)", "instruction: Some(\"x\")"] {
        assert!(told.contains(part), "{told}");
    }
    // `Numbers` reads the first number of the text: that of the document that stands first.
    let duo = "[[stage]]\nkind = \"duo\"\nmodel = \"1\"\ndepth = 3\ntemplate = \"{a} {b}\"\naggregate = \"sum\"\nmax_chars = 1\n";
    assert_eq!(order(duo, &["0 a", "1 b", "2 c", "3 d"]), (vec![2, 1, 0, 3], 3));
    for (wrong, problem) in [
        ("depth = 1", "depth: 1; at least 2"),
        ("", "depth is missing"),
        ("depth = 2\nmax_chars = 0", "max_chars: 0"),
        ("depth = 2\ntemplate = \"{b} {a}\"", "it has {a} and behind it {b}"),
        ("depth = 2\naggregate = \"mean\"", "aggregate"),
        ("depth = 2\nkeep = 2", "keep is no key of the kind duo"),
    ] {
        let text = format!("[[stage]]\nkind = \"duo\"\nmodel = \"1\"\n{wrong}\n");
        let built = CascadeFile::parse("test", &text).and_then(|file| file.build(&mut Named::default()));
        let told = built.unwrap_err().to_string();
        assert!(told.contains("stage 1") && told.contains(problem), "{told}");
    }
    let none = "[[stage]]\nkind = \"one-pass\"\nmodel = \"lists\"\nblock = 0\n";
    let told =
        CascadeFile::parse("test", none).unwrap().build(&mut Named::default()).unwrap_err().to_string();
    assert!(told.contains("stage 1") && told.contains("block"), "{told}");
}

#[test]
fn a_screen_is_the_model_in_another_precision_unless_it_is_another_model() {
    let spec = |more: &str| {
        let text =
            format!("[[stage]]\nkind = \"confirm\"\nmodel = \"1\"\nslack = 0.5\nmax_length = 9\n{more}");
        CascadeFile::parse("test", &text).map(|file| match &file.stages[0] {
            StageSpec::Confirm(spec) => (**spec).clone(),
            other => panic!("{other:?}"),
        })
    };
    let same = spec("screen_precision = \"int8\"").unwrap();
    assert_eq!((same.screen.model.as_str(), same.screen.max_length, same.top_n), ("1", Some(9), 10));
    assert_eq!(same.screen.precision.precision(), Some(Precision::Int8));
    assert_eq!(spec("screen_model = \"2\"").unwrap().screen.model, "2");
    assert_eq!(same.same, SameSpec::Order);
    assert_eq!(spec("screen_model = \"2\"\nsame = \"set\"").unwrap().same, SameSpec::Set);
    let wrong = spec("screen_model = \"2\"\nsame = \"both\"").unwrap_err().to_string();
    assert!(wrong.contains("same: unknown variant `both`, expected `order` or `set`"), "{wrong}");
    assert!(spec("").unwrap_err().to_string().contains("the screen is the model itself"));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, message) in [
        ("", "test: no stage in it"),
        ("[[stage]]\nmodel = 1", "test: stage 1: model: "),
        ("[[stage]]\nkeep = 3", "test: stage 1: model is missing"),
        ("[[stage]]\nmodel = \"1\"\nprecision = \"fp8\"", "precision \"fp8\": it is auto, f32, bf16 or int8"),
        ("[[stage]]\nmodel = \"1\"\nkeeps = 3", "test: stage 1: keeps is no key of the kind rescore"),
        ("[[stage]]\nmodel = \"1\"\n[[stage]]\nkind = \"mmr\"", "test: stage 2: mmr: missing field `keep`"),
        (
            "[[stage]]\nkind = \"mmr\"\nkeep = 3\nsimilarity = \"words\"",
            "it is shingles, shingles:N or bi:MODEL",
        ),
        ("[[stage]]\nkind = 3", "test: stage 1: kind is 3; it is a text"),
        (
            "[[stage]]\nmodel = \"1\"\nblend = \"interpolate\"",
            "blend = \"interpolate\" and weight go together",
        ),
        ("[[stage]]\nmodel = \"1\"\nearly_stop = \"proven\"", "early_stop and top_n go together"),
        ("[[stage]]\nkind = \"confirm\"\nmodel = \"1\"\nscreen_precision = \"int8\"", "slack is missing"),
        ("[budget]\nms = -1\n[[stage]]\nmodel = \"1\"", "test: budget.ms: -1; it is a number above 0"),
        ("[budget]\nseconds = 1", "unknown field `seconds`"),
        ("[budget]\ntokens = 0\n[[stage]]\nmodel = \"1\"", "test: budget.tokens: 0; it is a number above 0"),
        (
            "[budget]\nusd = 1\n[[stage]]\nmodel = \"1\"",
            "test: budget.usd: no stage has a price, so it limits nothing; set usd_per_million_tokens",
        ),
        (
            "[budget]\nusd = 1\n[[stage]]\nmodel = \"1\"\nusd_per_million_tokens = 0",
            "budget.usd: no stage has a price",
        ),
        (
            "[[stage]]\nmodel = \"1\"\nblend = \"interpolate\"\nweight = nan",
            "test: stage 1: weight: NaN; it is a finite number",
        ),
        ("[[stage]]\nmodel = \"1\"\nmin_probability = nan", "min_probability: NaN; it is a finite number"),
        ("[[stage]]\nmodel = \"1\"\nmin_score = inf", "min_score: inf; it is a finite number"),
        ("[[stage]]\nkind = \"mmr\"\nkeep = 3\nlambda = nan", "lambda: NaN; it is a finite number"),
        ("[[stage]]\nkind = \"distinct\"\nlimit = nan", "limit: NaN; it is a finite number"),
        ("[[stage]]\nkind = \"xquad\"\nmodel = \"1\"\nkeep = 3\nlambda = nan", "lambda: NaN; it is a finite"),
        ("[[stage]\nmodel = \"1\"", "test: TOML parse error at line 1"),
    ] {
        let found = CascadeFile::parse("test", text).unwrap_err().to_string();
        assert!(found.contains(message), "{text:?}: {found}");
    }
    for priced in ["usd_per_million_tokens = 0.02", "\n[[stage]]\nkind = \"oracle\""] {
        let text = format!("[budget]\nusd = 1\n[[stage]]\nmodel = \"1\"\n{priced}");
        assert!(CascadeFile::parse("test", &text).is_ok(), "{text}");
    }
    let build = |text: &str| {
        let file = CascadeFile::parse("test", text).unwrap();
        file.build(&mut Named::default()).map(drop).unwrap_err().to_string()
    };
    assert!(
        build("[[stage]]\nkind = \"oracle\"").starts_with("test: stage 1: kind \"oracle\" is not known here")
    );
    assert!(build("[[stage]]\nkind = \"mmr\"\nkeep = 1\nlambda = 2.0").contains("test: stage 1: lambda: 2"));
}
