//! `jointly slices`, on our own challenge set.

use super::*;

fn challenge() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../challenge").display().to_string()
}

#[test]
fn words_alone_win_on_the_control_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, json) = (folder.path().join("cache"), folder.path().join("found.json"));
    let [cache, json_path] = [&cache, &json].map(|path| path.display().to_string());
    let challenge = challenge();
    let arguments = [
        "slices", &challenge, "--cache", &cache, "--json", &json_path, "-r", "first", "-r", "bm25", "--quiet",
    ];
    let table = ok(&arguments, b"");
    let found: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let slices = found["slices"].as_array().unwrap();
    assert_eq!(slices.len(), 6);
    assert_eq!(table.lines().count(), 6 * 3);
    for slice in slices {
        assert!(slice["items"].as_u64().unwrap() >= 60);
        assert_eq!(slice["metric"], "paired-accuracy");
        let [first, bm25] = &slice["rankers"].as_array().unwrap()[..] else { panic!("two rankers") };
        // Candidates of a pool without scores come in the order of the file, which is no answer.
        assert_eq!((&first["mean"], &first["comparison"]), (&0.0.into(), &Value::Null));
        let is_control = slice["name"] == "easy-control";
        let mean = bm25["mean"].as_f64().unwrap();
        assert!(if is_control { mean == 1.0 } else { mean < 0.2 }, "{}: {mean}", slice["name"]);
        let beyond = &bm25["beyond_the_control"];
        assert_eq!(beyond.is_null(), is_control);
        assert!(
            is_control
                || (beyond["difference"].as_f64().unwrap() < -0.8 && beyond["holm"].as_f64().unwrap() < 0.01)
        );
    }
    fails(&arguments, b"", 2, "--force");
}

#[test]
fn what_is_missing_is_named() {
    fails(&["slices"], b"", 2, "CHALLENGE");
    fails(&["slices", "--public", "unheard-of=here"], b"", 2, "tatqa");
    fails(&["slices", "/nonexistent"], b"", 2, "/nonexistent");
    fails(&["slices", "--public", "tatqa=/nonexistent"], b"", 2, "/nonexistent");
}
