//! Frequencies of rotary positions against transformers', in both spellings of a config.

use crate::common::fixtures;
use pipe_llm::ModelConfig;
use pipe_llm::ops::frequencies::{Frequencies, frequencies};

/// Three roundings in f32.
const TOLERANCE: f64 = 5e-7;

#[test]
fn frequencies_are_those_of_transformers() {
    let text = std::fs::read_to_string(fixtures().join("rope/frequencies.json")).expect("the fixture");
    let fixture: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let cases = fixture["cases"].as_array().expect("a list");
    assert!(cases.len() > 10);
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let numbers = |key: &str| -> Vec<f64> { serde_json::from_value(case[key].clone()).expect("numbers") };
        for spelling in ["config", "config_classic"] {
            let config = ModelConfig::from_json(&case[spelling].to_string())
                .unwrap_or_else(|error| panic!("{name}, {spelling}: {error}"));
            let Frequencies { usual, of_long_documents, attention_factor } = frequencies(&config.ropes[0]);
            let length = case["length"].as_u64().expect("a number") as usize;
            let ours = match of_long_documents {
                Some((longest, long)) if length > longest => long,
                _ => usual,
            };
            let theirs = numbers("frequencies");
            assert_eq!(ours.len(), theirs.len(), "{name}, {spelling}");
            for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                let difference = (f64::from(*ours) / theirs - 1.0).abs();
                assert!(difference < TOLERANCE, "{name}, {spelling}, frequency {i}: {ours} against {theirs}");
            }
            let expected = case["attention_factor"].as_f64().expect("a number");
            assert!((attention_factor / expected - 1.0).abs() < 1e-12, "{name}: {attention_factor} against {expected}");
        }
    }
}
