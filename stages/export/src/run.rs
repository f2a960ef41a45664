//! Reads model and adapter, checks that they belong together, writes what was asked for.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_contract::{Artifact, ArtifactKind, Context, OutputPort, Stage, StageError};
use pipe_llm::new_tokens::NewTokens;
use pipe_llm::{Adapter, ModelConfig, Program, load, model_folder, rewrite, weights};
use pipe_tokenizer::{TokenizerError, generated};

use crate::error::ExportError;
use crate::probe::{self, Comparison};
use crate::settings::{Format, Settings};

/// `uses: export` with its settings.
pub struct Export {
    /// As resolved.
    pub settings: Settings,
}

impl Stage for Export {
    fn outputs(&self) -> Vec<OutputPort> {
        let port = |format: &Format| match format {
            Format::Adapter => OutputPort { name: "adapter", kind: ArtifactKind::Adapter },
            Format::Merged => OutputPort { name: "merged", kind: ArtifactKind::Model },
        };
        self.settings.formats.iter().map(port).collect()
    }

    /// A merged model is as large as the model, as long as it keeps the dtypes; an adapter as large as the adapter.
    fn predict_bytes(&self, inputs: &BTreeMap<String, u64>) -> Option<u64> {
        let bytes = |format: &Format| match format {
            Format::Adapter => Some(inputs.get("adapter").copied().unwrap_or(0)),
            Format::Merged if self.settings.dtype.is_some() => None,
            Format::Merged => inputs.get("model").copied(),
        };
        self.settings.formats.iter().map(bytes).sum()
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let model = ctx.input("model")?;
        let config = load::model_config(model)?;
        let adapter = ctx.inputs.get("adapter").map(|artifact| load::adapter(&config, artifact)).transpose()?;
        for format in &self.settings.formats {
            match format {
                Format::Adapter => self.write_adapter(ctx, &config, adapter.as_ref().ok_or(ExportError::NoAdapter)?)?,
                Format::Merged => self.write_merged(ctx, &config, model, adapter.as_ref())?,
            }
        }
        Ok(())
    }
}

impl Export {
    fn write_adapter(&self, ctx: &Context<'_>, config: &ModelConfig, adapter: &Adapter) -> Result<(), StageError> {
        let mut exported = adapter.clone();
        exported.config.base_model.clone_from(&self.settings.base_model);
        exported.config.revision.clone_from(&self.settings.revision);
        let folder = ctx.output_dir("adapter")?;
        exported.save(&folder)?;
        let model = ctx.input("model")?;
        write_generated(ctx, model, &folder)?;
        // Nobody else has the new tokens; and PEFT's `AutoPeftModelForCausalLM` adds as many rows to the base as this tokenizer has tokens.
        if NewTokens::of(model)?.is_some() {
            model_folder::copy_tokenizer(model, &folder)?;
        }
        let artifact = Artifact::from_folder(ArtifactKind::Adapter, &folder)?;
        let back = load::adapter(config, &artifact)?;
        check_same(&exported, &back)?;
        let tokens = match back.config.n_tokens() {
            0 => String::new(),
            n_tokens => format!(", {n_tokens} tokens"),
        };
        ctx.fact("adapter", format!("{} modules, r = {}{tokens}", back.modules.len(), back.config.lora_rank));
        Ok(())
    }

    fn write_merged(
        &self,
        ctx: &Context<'_>,
        config: &ModelConfig,
        model: &Artifact,
        adapter: Option<&Adapter>,
    ) -> Result<(), StageError> {
        let program = Program::for_adapter(config, adapter.map(|adapter| &adapter.config))?;
        let files = load::weight_files(model)?;
        weights::check(&program, &files)?;
        let folder = ctx.output_dir("merged")?;
        let Settings { dtype, max_shard_size_bytes, .. } = self.settings;
        model_folder::write_config(model, &folder, dtype)?;
        model_folder::copy_companions(model, &folder)?;
        write_generated(ctx, model, &folder)?;
        let changes = adapter.map(|adapter| rewrite::merging(adapter, &program)).transpose()?.unwrap_or_default();
        rewrite::write(ctx, &files, &program, &changes, dtype, max_shard_size_bytes, &folder)?;
        ctx.fact("merged", format!("{} tensors", program.weights.len()));
        let merged = Artifact::from_folder(ArtifactKind::Model, &folder)?;
        report(ctx, probe::compare(ctx, &program, model, adapter, &merged)?);
        Ok(())
    }
}

/// A tokenizer that is built in for `model`, or made from its GGUF, has no file to copy, and nobody else makes it: it is written out. Weights can
/// be exported without one: a vocabulary that makes none is a warning.
fn write_generated(ctx: &Context<'_>, model: &Artifact, folder: &Path) -> Result<(), StageError> {
    let files = match generated::files(model) {
        Err(error @ TokenizerError::Gguf { .. }) => {
            ctx.warn(format!("no tokenizer is exported: {error}"));
            return Ok(());
        }
        files => files?,
    };
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| StageError::io("write", &path, e))?;
    }
    Ok(())
}

fn report(ctx: &Context<'_>, comparison: Option<Comparison>) {
    let Some(Comparison { largest_difference, largest_logit }) = comparison else {
        ctx.log("the merge is not checked: the check would hold the whole model in memory, and it has more than 4 GiB");
        return;
    };
    ctx.fact("largest logit difference", format!("{largest_difference:.1e}"));
    ctx.log(format!(
        "the merged model's logits differ from those of base and adapter by at most {largest_difference:.1e}, the largest \
         logit being {largest_logit:.1}"
    ));
    if !largest_difference.is_finite() {
        ctx.warn("the merged model gives logits that are not finite, or the base does");
    }
}

/// What was written must read back as what was given, to the bit.
fn check_same(ours: &Adapter, back: &Adapter) -> Result<(), ExportError> {
    if ours.config != back.config {
        return Err(ExportError::NotTheSame { why: format!("config {:?} became {:?}", ours.config, back.config) });
    }
    let bits = |tensor: &candle_core::Tensor| -> Option<Vec<u32>> {
        let values: Vec<f32> = tensor.flatten_all().and_then(|t| t.to_vec1()).ok()?;
        Some(values.into_iter().map(f32::to_bits).collect())
    };
    for (ours, back) in ours.tokens.iter().zip(&back.tokens) {
        if ours.path != back.path || bits(&ours.rows) != bits(&back.rows) {
            return Err(ExportError::NotTheSame { why: format!("the rows of tokens of `{}` differ", ours.path) });
        }
    }
    for (ours, back) in ours.modules.iter().zip(&back.modules) {
        if ours.path != back.path || bits(&ours.a) != bits(&back.a) || bits(&ours.b) != bits(&back.b) {
            return Err(ExportError::NotTheSame { why: format!("the matrices of `{}` differ", ours.path) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predict(yaml: &str, inputs: &[(&str, u64)]) -> Option<u64> {
        let (settings, _, problems) = pipe_contract::read_yaml(yaml, crate::settings::read);
        assert!(problems.is_empty(), "{problems:?}");
        Export { settings }.predict_bytes(&inputs.iter().map(|&(port, bytes)| (port.to_string(), bytes)).collect())
    }

    #[test]
    fn what_it_writes_is_as_large_as_what_it_reads() {
        let inputs = [("model", 14_000), ("adapter", 20)];
        assert_eq!(predict("{}", &inputs), Some(14_020));
        assert_eq!(predict("{ formats: [merged] }", &inputs), Some(14_000));
        assert_eq!(predict("{ formats: [adapter] }", &inputs), Some(20));
        assert_eq!(predict("{}", &inputs[..1]), Some(14_000));
        assert_eq!(predict("{}", &inputs[1..]), None);
        assert_eq!(predict("{ dtype: float32 }", &inputs), None, "what is in the files is not known here");
    }
}
