//! Lists of every family.

use super::*;

fn config(n_layers: usize) -> ModelConfig {
    ModelConfig::from_json(&format!(
        r#"{{"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":12,"num_hidden_layers":{n_layers},
        "num_attention_heads":2,"vocab_size":16,"max_position_embeddings":32}}"#
    ))
    .expect("valid")
}

#[test]
fn the_weights_are_those_of_the_config() {
    let config = config(2);
    let program = Program::new(&config, &[]).expect("no targets");
    let mut ours: Vec<(String, Vec<usize>)> =
        program.weights.iter().map(|w| (w.name.clone(), w.shape.clone())).collect();
    let mut theirs = tensor_shapes(&config);
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn no_gradient_is_wanted_below_the_lowest_adapter() {
    let program = Program::new(&config(2), &["down_proj".into()]).expect("a module");
    let liveness = program.liveness();
    let Op::Residual { output, .. } = program.ops.iter().find(|op| matches!(op, Op::Residual { .. })).expect("one")
    else {
        unreachable!("found by its kind")
    };
    assert!(!liveness.needs_gradient[*output], "the attention half of layer 0 lies below every adapter");
    assert!(liveness.needs_gradient[program.n_values() - 1]);
    let Op::Attention { q, .. } = program.ops.iter().find(|op| matches!(op, Op::Attention { .. })).expect("one") else {
        unreachable!("found by its kind")
    };
    assert!(!liveness.is_saved[*q]);
}

#[test]
fn full_training_trains_what_is_not_frozen() {
    let all = Program::full(&config(2), &[]).expect("valid");
    assert_eq!(all.n_parameters(), all.weights.len());
    assert!(all.liveness().needs_gradient.iter().all(|needs| *needs), "the embedding is trained");
    let upper = Program::full(&config(2), &["model.embed_tokens".into(), "model.layers.0".into()]).expect("valid");
    let names: Vec<&str> = upper.trained.iter().map(|&w| upper.weights[w].name.as_str()).collect();
    assert!(
        names.iter().all(|n| n.starts_with("model.layers.1.") || n == &"model.norm.weight" || n == &"lm_head.weight")
    );
    assert_eq!(names.len(), 11, "{names:?}");
    let liveness = upper.liveness();
    let n_below = liveness.needs_gradient.iter().filter(|needs| !**needs).count();
    // The embedding and the values of the first layer but the rotated ones.
    assert_eq!(
        n_below,
        1 + upper
            .ops
            .iter()
            .skip(1)
            .position(|op| op.weights().iter().any(|w| upper.parameter_of(*w).is_some()))
            .expect("one")
    );
    assert!(
        Program::full(&config(1), &["*.q_porj".into()]).expect_err("a typing error").to_string().contains("q_porj")
    );
    assert!(Program::full(&config(1), &["*".into()]).is_err());
}

#[test]
fn a_target_that_matches_nothing_is_an_error() {
    let error = Program::new(&config(1), &["q_proj".into(), "query".into()]).expect_err("no such module");
    assert!(error.to_string().contains("`query`"), "{error}");
    for (text, modules) in [
        (
            r#"{"model_type":"gpt2","n_embd":8,"n_layer":2,"n_head":2,"n_positions":8,"vocab_size":6}"#,
            "c_attn, c_proj, c_fc",
        ),
        (
            r#"{"model_type":"phi3","hidden_size":8,"intermediate_size":12,"num_hidden_layers":2,"num_attention_heads":2,
            "vocab_size":16,"max_position_embeddings":32}"#,
            "qkv_proj, o_proj, gate_up_proj, down_proj",
        ),
    ] {
        let config = ModelConfig::from_json(text).expect("valid");
        let error = Program::new(&config, &["q_proj".into()]).expect_err("no such module").to_string();
        assert!(error.contains("`q_proj`") && error.ends_with(modules), "{error}");
        let mut all: Vec<&str> = modules.split(", ").collect();
        all.sort_unstable();
        assert_eq!(Program::all_linear(&config), all);
    }
}
