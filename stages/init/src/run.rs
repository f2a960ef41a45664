//! The stage: a tokenizer from the texts, then the files of the model.

use std::fmt::Write as _;
use std::path::Path;

use pipe_contract::{
    Artifact, ArtifactKind, Context, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind, Unit,
};
use pipe_llm::{ModelConfig, tensor_shapes};
use pipe_records::examples::read_examples;
use pipe_records::{folders, thousands};
use pipe_tokenizer::{BpeTrainer, Trained};

use crate::InitError;
use crate::config::{END_TOKEN, json_files};
use crate::settings::Settings;
use crate::weights::Initializer;

/// The kind, for the runner's registry.
pub static KIND: InitKind = InitKind;

/// `uses: init`.
pub struct InitKind;

impl StageKind for InitKind {
    fn name(&self) -> &'static str {
        "init"
    }

    fn summary(&self) -> &'static str {
        "examples -> a fresh Llama with random weights and a tokenizer trained on them"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[InputPort { name: "examples", kind: ArtifactKind::Examples, is_required: true }]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[OutputPort { name: "model", kind: ArtifactKind::Model }]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(Init { settings: Settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, _n_rows: usize) -> Result<String, StageError> {
        let path = artifact.file("config.json")?;
        let config = std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))?;
        let mut text = describe(&read_config(&config)?) + "\n\n";
        for (name, file) in &artifact.files {
            writeln!(text, "{:>12}  {name}", file.size_bytes).expect("writing to a String cannot fail");
        }
        Ok(text)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        folders::figures(artifact)
    }
}

struct Init {
    settings: Settings,
}

impl Stage for Init {
    fn outputs(&self) -> Vec<OutputPort> {
        KIND.outputs().to_vec()
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let trained = self.train_tokenizer(ctx)?;
        ctx.check_cancelled()?;
        let folder = ctx.output_dir("model")?;
        write(&folder.join("tokenizer.json"), &trained.json)?;
        let files = json_files(&self.settings, trained.vocab_size);
        for (name, text) in &files {
            write(&folder.join(name), text.as_bytes())?;
        }
        let config = read_config(&files[0].1)?;
        let Settings { seed, dtype, ref shape, .. } = self.settings;
        let initializer = Initializer { seed, range: shape.initializer_range as f32, dtype };
        initializer.write(&folder.join("model.safetensors"), tensor_shapes(&config))?;
        ctx.log(describe(&config));
        ctx.fact("parameters", thousands(n_parameters(&config) as u64));
        ctx.fact("vocabulary", thousands(config.vocab_size as u64));
        Ok(())
    }
}

impl Init {
    fn train_tokenizer(&self, ctx: &Context<'_>) -> Result<Trained, StageError> {
        let mut trainer = BpeTrainer::new(self.settings.vocab_size, &[END_TOKEN])?;
        let reader = read_examples(ctx.input("examples")?)?;
        let n_rows = reader.num_rows();
        if n_rows == 0 {
            return Err(InitError::NoRows.into());
        }
        let mut n_read = 0;
        for batch in reader {
            ctx.check_cancelled()?;
            let texts: Vec<String> = batch?.into_iter().map(|example| example.text).collect();
            trainer.feed(&texts)?;
            n_read += texts.len() as u64;
            ctx.progress(n_read, n_rows, Unit::Rows);
        }
        let trained = trainer.train();
        if trained.vocab_size < self.settings.vocab_size {
            ctx.warn(format!(
                "the texts give {} tokens, less than `vocab_size` ({}): no further pair occurs twice",
                trained.vocab_size, self.settings.vocab_size
            ));
        }
        Ok(trained)
    }
}

fn read_config(text: &str) -> Result<ModelConfig, InitError> {
    ModelConfig::from_json(text).map_err(|error| InitError::Config { message: error.to_string() })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    std::fs::write(path, bytes).map_err(|e| StageError::io("write", path, e))
}

fn n_parameters(config: &ModelConfig) -> usize {
    tensor_shapes(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

fn describe(config: &ModelConfig) -> String {
    format!(
        "a Llama of {} parameters: {} layers, {} channels, {} heads ({} for keys and values), {} tokens, {} positions",
        thousands(n_parameters(config) as u64),
        config.n_layers,
        config.hidden_size,
        config.n_heads,
        config.n_kv_heads,
        thousands(config.vocab_size as u64),
        thousands(config.max_positions as u64),
    )
}
