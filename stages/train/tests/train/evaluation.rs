//! The loss on port `eval`: its value, its place in the metrics, the best by it, and that it changes nothing else.

use pipe_contract::{Figure, StageKind};
use pipe_stage_train::KIND;

use crate::work::{FULL, WITH, Work, eval_losses, lines, losses};

/// [`WITH`] at one learning rate, so large that the loss on other packs rises again; evaluated after 2, 4, 6, 8 and the last.
const RISING: &str = "{ lora: { r: 4, lora_dropout: 0.1 }, per_device_train_batch_size: 4, learning_rate: 0.1, lr_scheduler_type: constant, num_train_epochs: 3, logging_steps: 1, eval_steps: 2 }";

#[test]
fn evaluations_change_nothing_of_what_is_trained() {
    let work = Work::new();
    for (name, settings) in [("adapter", WITH), ("model", FULL)] {
        let without = work.run(&format!("{name} without"), settings, &work.inputs(), None).well();
        let evaluated = settings.replace("logging_steps: 1", "logging_steps: 1, eval_steps: 2");
        let with = work.run(&format!("{name} with"), &evaluated, &work.inputs_with_eval(), None).well();
        let trained = |file: &&String| file.starts_with(name) || file.ends_with("checkpoints.jsonl");
        for file in without.files.keys().filter(trained) {
            assert_eq!(without.files[file], with.files[file], "{file}");
        }
        assert_eq!(losses(&with), losses(&without));
        assert_eq!(eval_losses(&with).iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4, 6, 8, 9]);
    }
}

#[test]
fn the_loss_is_the_mean_over_the_supervised_tokens_of_all_packs() {
    let work = Work::new();
    let settings = WITH.replace("logging_steps: 1", "eval_strategy: epoch");
    let ran = work.run("first", &settings, &work.inputs_with_eval(), None).well();
    let evals = eval_losses(&ran);
    assert_eq!(evals.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [3, 6, 9]);
    // The first loss of a run that goes on from the adapter, on all of these packs at once and without dropout.
    let inputs = vec![("data", work.eval_packs()), ("model", Work::model()), ("adapter", work.adapter_of("first"))];
    let settings = "{ per_device_train_batch_size: 3, max_steps: 1, train_sampling_strategy: sequential }";
    let next = work.run("next", settings, &inputs, None).well();
    assert_eq!(losses(&next)[0], evals[2].1);
}

#[test]
fn the_best_is_written_where_it_is_asked_for() {
    let work = Work::new();
    let inputs = work.inputs_with_eval();
    let last = work.run("last", RISING, &inputs, None).well();
    let evals = eval_losses(&last);
    let best = evals.iter().copied().reduce(|best, line| if line.1 < best.1 { line } else { best }).expect("some");
    assert!(best.0 < 9 && best.1 < evals[4].1, "the test needs a loss that rises again: {evals:?}");
    let state: serde_json::Value = serde_json::from_slice(&last.files["metrics/trainer_state.json"]).expect("JSON");
    assert_eq!(state["best_metric"].as_f64(), Some(best.1));
    assert_eq!(state["best_model_checkpoint"], format!("checkpoint-{}", best.0));
    assert_eq!(state["global_step"], 9);

    // The adapter of a run that ends there.
    let until_best = RISING.replace("num_train_epochs: 3", &format!("max_steps: {}", best.0));
    let until_best = work.run("until best", &until_best, &inputs, None).well();
    let takes_best = RISING.replace("eval_steps: 2", "eval_steps: 2, load_best_model_at_end: true");
    let ran = work.run("best", &takes_best, &inputs, None).well();
    ran.assert_says(&format!("the best by the loss on port `eval` is that of optimizer step {}", best.0));
    let adapter = "adapter/adapter_model.safetensors";
    assert_eq!(ran.files[adapter], until_best.files[adapter]);
    assert_ne!(ran.files[adapter], last.files[adapter]);
    assert_eq!(lines(&ran, "metrics/checkpoints.jsonl"), lines(&last, "metrics/checkpoints.jsonl"));

    // The last run has it in its checkpoints: not one optimizer step is taken again.
    let again = work.run_until("again", "last", &takes_best, &inputs, &|_| false).well();
    again.assert_says("goes on from the checkpoint of optimizer step 9");
    assert!(!again.log.iter().any(|line| line.starts_with("step ")), "{:?}", again.log);
    assert_eq!(again.files, ran.files);
}

#[test]
fn evaluations_are_drawn_and_told() {
    let work = Work::new();
    let ran = work.run("a", RISING, &work.inputs_with_eval(), None).well();
    ran.assert_says("evaluates on 3 packs with ");
    ran.assert_says("evaluation after optimizer step 2: loss ");
    let folder = work.folder.path().join("a/outputs/metrics");
    let metrics = pipe_contract::Artifact::from_folder(pipe_contract::ArtifactKind::Metrics, &folder).expect("metrics");
    let figures = KIND.figures("metrics", &metrics).expect("figures");
    let Figure::Chart(loss) = &figures[1] else { panic!("{figures:?}") };
    assert_eq!(loss.series.last().map(|series| (series.name.as_str(), series.points.len())), Some(("evaluation", 5)));
    let svg = String::from_utf8(ran.files["metrics/loss.svg"].clone()).expect("text");
    assert!(svg.contains("evaluation"), "the legend names it");
    assert!(KIND.show("metrics", &metrics, 3).expect("a table").contains("eval_loss"));
}

#[test]
fn packs_that_cannot_be_evaluated_stop_the_run_before_it_begins() {
    let work = Work::new();
    let inputs = [work.inputs(), vec![("eval", work.packs(false))]].concat();
    let ran = work.run("a", RISING, &inputs, None);
    let error = ran.result.expect_err("no labels");
    assert_eq!(error.slug, "nothing-to-evaluate");
    assert!(!ran.log.iter().any(|line| line.starts_with("step ")));
}
