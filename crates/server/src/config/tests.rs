use super::*;

fn read(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jointly.toml");
    std::fs::write(&path, file).unwrap();
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    let layers = Layers { file: Some(path), environment: own(environment), flags: own(flags) };
    layers.read().map(|(config, _)| config).map_err(|error| error.to_string())
}

#[test]
fn what_comes_later_counts() {
    let file = "listen = [\"127.0.0.1:1\"]\n[queue]\nmax_wait = \"3s\"\nmax_requests = 7\nmax_tokens = 5000";
    let environment = [("JOINTLY_QUEUE_MAX_WAIT", "4s"), ("JOINTLY_QUEUE_MAX_REQUESTS", "8")];
    let config = read(file, &environment, &[("queue.max_wait", "250ms")]).unwrap();
    assert_eq!(config.queue.max_wait, Duration::from_millis(250));
    assert_eq!((config.queue.max_requests, config.queue.max_tokens), (8, 5000));
    assert_eq!(config.limits, Limits::default());
    let environment =
        [("JOINTLY_MODELS_DEFAULT_PRECISION", "f32"), ("JOINTLY_LISTEN", "127.0.0.1:2,unix:/tmp/x")];
    let config =
        read("", &environment, &[("models.v3.5.source", "some/folder"), ("names.rerank-v3.5", "v3.5")]);
    let config = config.unwrap();
    assert_eq!(config.listen, ["127.0.0.1:2", "unix:/tmp/x"]);
    assert_eq!(config.models["v3.5"].source, "some/folder");
    assert_eq!(config.models["default"].precision, "f32");
    assert_eq!(config.names["rerank-v3.5"], "v3.5");
}

#[test]
fn messages_name_the_key() {
    let wrong = [
        ("[queue]\nmax_wait = 5", "queue.max_wait: "),
        ("[queue]\nmax_wate = \"5s\"", "queue.max_wate: unknown field"),
        ("[queue]\nmax_wait = \"5 days\"", "queue.max_wait: "),
        ("nonsense = 1", "nonsense: unknown field"),
        ("listen = []", "listen: "),
        ("listen = [\"127.0.0.1:1\", \"nowhere\"]", "listen[1]: "),
        ("default_model = \"x\"", "default_model: "),
        ("[models.default]\nprecision = \"f64\"", "models.default.precision: "),
        ("[models.default]\nload = \"never\"", "models.default.load: "),
        ("[names]\n\"rerank-v3.5\" = \"x\"", "names.\"rerank-v3.5\": "),
        ("[limits]\njson_depth = 1000", "limits.json_depth: "),
        ("[limits]\nbody_bytes = 1", "limits.body_bytes: "),
        ("[deadline]\nmax = \"0s\"", "deadline.max: "),
        ("[tls]\nkey = \"x\"", "tls: "),
        ("[log]\nformat = \"xml\"", "log.format: "),
        ("[log]\nlevel = \"loud=loud=loud\"", "log.level: "),
        ("[[keys]]\nname = \"a\"\nsha256 = \"secret\"", "keys[0].sha256: "),
        ("listen = [", "jointly.toml: "),
    ];
    for (file, place) in wrong {
        let error = read(file, &[], &[]).unwrap_err();
        assert!(error.contains(place), "{file}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = read("", &[("JOINTLY_QUEUE_MAX_REQUESTS", "many")], &[]).unwrap_err();
    assert!(error.starts_with("JOINTLY_QUEUE_MAX_REQUESTS (queue.max_requests): "), "{error}");
    let error = read("", &[], &[("queue.max_wate", "1s")]).unwrap_err();
    assert!(error.starts_with("queue.max_wate: there is no such setting"), "{error}");
}

#[test]
fn unknown_variables_are_said_and_those_of_others_are_not() {
    let own = |name: &str| (name.to_string(), "x".to_string());
    let environment =
        ["JOINTLY_ISA", "JOINTLY_PORT", "JOINTLY_SERVICE_HOST", "JOINTLY_QUEUE_MAX_WATE"].map(own).to_vec();
    let (_, notes) = Layers { environment, ..Layers::default() }.read().unwrap();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].starts_with("JOINTLY_QUEUE_MAX_WATE: "), "{notes:?}");
}

#[test]
fn what_is_printed_is_read_as_the_same() {
    let config = read("[names]\n\"a.b\" = \"default\"", &[], &[("queue.batch_time", "1.5ms")]).unwrap();
    assert_eq!(read(&config.to_toml().unwrap(), &[], &[]).unwrap(), config);
}
