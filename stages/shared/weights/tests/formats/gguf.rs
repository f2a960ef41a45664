//! Files of gguf-py, llama.cpp's own writer.

use crate::{assert_same, fixture, open_bytes, open_path, refusal};

/// Where `needle` begins in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).expect("it is there")
}

/// Families whose files have the very numbers of their models.
const FAMILIES: [&str; 7] = ["llama", "llama3", "mistral", "qwen2", "qwen3", "phi3", "gpt2"];

/// Whether a tensor lies in the file in another order than in the model.
fn is_turned(family: &str, name: &str) -> bool {
    let parts: &[&str] = match family {
        "llama" | "llama3" | "mistral" => &[".q_proj.weight", ".k_proj.weight"],
        "gpt2" => &[".c_attn.weight", ".c_proj.weight", ".c_fc.weight"],
        _ => &[],
    };
    parts.iter().any(|part| name.ends_with(part))
}

#[test]
fn a_gguf_has_the_tensors_of_the_model_it_was_made_of() {
    for family in FAMILIES {
        let files = open_path(&fixture(&format!("weights/{family}.gguf"))).unwrap();
        assert_same(&files, &open_path(&fixture(&format!("parity/{family}/model.safetensors"))).unwrap());
        for (name, entry) in files.entries() {
            assert_eq!(entry.is_in_place(), !is_turned(family, name), "{family}: {name}");
            assert!(entry.offset.is_multiple_of(32), "{name}");
        }
        let claim =
            |field: &str| files.claims().iter().find(|claim| claim.field == field).map(|claim| &claim.values[..]);
        if family == "gpt2" {
            assert_eq!((claim("n_head"), claim("layer_norm_epsilon")), (Some(&[4.0][..]), Some(&[1e-5][..])));
            continue;
        }
        let heads = (claim("num_attention_heads"), claim("num_key_value_heads"));
        assert_eq!(heads, (Some(&[4.0][..]), Some(&[2.0][..])), "{family}");
        assert!(claim("rope_theta").is_some() && claim("rms_norm_eps").is_some());
        assert_eq!(claim("rope_freqs").is_some(), family == "llama3");
        assert_eq!(claim("long_factor"), (family == "phi3").then_some(&[1.3, 4.0][..]));
    }
}

/// llama.cpp's converter adds 1 to them, and a sum rounds.
#[test]
fn norms_of_a_gemma_are_those_of_the_model_but_for_the_rounding_of_a_sum() {
    let floats = |bytes: Vec<u8>| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    for family in ["gemma2", "gemma3"] {
        let files = open_path(&fixture(&format!("weights/{family}.gguf"))).unwrap();
        let expected = open_path(&fixture(&format!("parity/{family}/model.safetensors"))).unwrap();
        assert!(files.entries().keys().eq(expected.entries().keys()), "{family}");
        let mut largest = 0.0_f32;
        for (name, entry) in files.entries() {
            let (read, whole) = (files.read(name).unwrap(), expected.read(name).unwrap());
            assert_eq!((entry.dtype, &entry.shape), (expected.entries()[name].dtype, &expected.entries()[name].shape));
            assert_eq!(entry.is_in_place(), !name.ends_with("norm.weight"), "{family}: {name}");
            if entry.is_in_place() {
                assert_eq!(read, whole, "{family}: {name}");
                continue;
            }
            for (read, whole) in floats(read).into_iter().zip(floats(whole)) {
                assert_eq!((1.0 + read).to_bits(), (1.0 + whole).to_bits(), "{name}: what the model multiplies by");
                largest = largest.max((read - whole).abs());
            }
        }
        assert!(0.0 < largest && largest <= f32::EPSILON / 2.0, "{family}: {largest:e}");
    }
}

#[test]
fn a_norm_of_a_gemma_that_is_not_a_float32_is_refused() {
    let mut whole = std::fs::read(fixture("weights/gemma2.gguf")).unwrap();
    // Behind the name: the number of sizes, one size, the type.
    let type_at = find(&whole, b"output_norm.weight") + 18 + 4 + 8;
    whole[type_at] = 1;
    let refused = refusal("a.gguf", &whole);
    assert!(refused.contains("`output_norm.weight` is stored as F16; norms are F32"), "{refused}");
}

#[test]
fn factors_that_are_not_a_ropes_are_refused() {
    let mut whole = std::fs::read(fixture("weights/phi3.gguf")).unwrap();
    let type_at = find(&whole, b"rope_factors_long.weight") + 24 + 4 + 8;
    whole[type_at] = 30;
    let refused = refusal("a.gguf", &whole);
    assert!(refused.contains("`rope_factors_long.weight` has the shape [2] and the dtype BF16"), "{refused}");
}

#[test]
fn a_gguf_that_is_not_read_says_what_to_do() {
    let whole = std::fs::read(fixture("weights/llama.gguf")).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut copy = whole.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        refusal("a.gguf", &copy)
    };
    assert!(changed(4, &[1]).contains("version 1 of GGUF"));
    assert!(changed(0, b"GGML").contains("does not begin with `GGUF`"));
    // A tensor's head: length and name, the number of sizes, the sizes, the type, the offset.
    let type_at = find(&whole, b"token_embd.weight") + 17 + 4 + 2 * 8;
    assert!(changed(type_at, &[12]).contains("`token_embd.weight` is stored as Q4_K; F32, F16 and BF16 are supported"));
    assert!(changed(type_at, &[200]).contains("stored as type 200"));
    assert!(changed(type_at + 4, &[1]).contains("does not lie at a multiple of 32 bytes"));
    assert!(changed(type_at + 4, &[0xff; 8]).contains("cut off"));
    assert!(changed(find(&whole, b"token_embd.weight"), b"tokem").contains("has the tensor `tokem_embd.weight`"));
    let architecture_at = find(&whole, b"general.architecture") + 20 + 4 + 8;
    let refused = changed(architecture_at, b"mamba");
    let families = "`llama`, `qwen2`, `qwen3`, `phi3`, `gemma2`, `gemma3`, `gpt2`";
    assert!(refused.contains(&format!("its architecture is `mamba`; of GGUF {families} are read")), "{refused}");
    // Numbers of tensors and keys, a size and a string beyond the file.
    assert!(changed(8, &[0xff; 8]).contains("it claims"));
    assert!(changed(16, &[0xff; 8]).contains("it claims"));
    assert!(changed(24, &[0xff; 8]).contains("a string of 18446744073709551615 bytes"));
    assert!(changed(type_at - 16, &[0xff; 8]).contains("cut off"));
}

#[test]
fn a_gguf_cut_off_anywhere_is_refused() {
    let whole = std::fs::read(fixture("weights/qwen2.gguf")).unwrap();
    let data_begins = whole.len() - 100_000;
    let cuts = (0..data_begins).step_by(7).chain((data_begins..whole.len()).step_by(9_973)).chain([whole.len() - 1]);
    for cut in cuts {
        refusal("cut.gguf", &whole[..cut]);
    }
    assert!(open_bytes("whole.gguf", &whole).is_ok());
}

#[test]
fn a_vocabulary_is_read_whole_or_refused() {
    let read = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.gguf"), bytes).unwrap();
        let kind = pipe_contract::ArtifactKind::Model;
        pipe_weights::gguf_vocabulary(&pipe_contract::Artifact::from_folder(kind, folder.path()).unwrap())
    };
    let whole = std::fs::read(fixture("weights/llama.gguf")).unwrap();
    let vocabulary = read(&whole).unwrap().expect("it has one");
    assert_eq!((vocabulary.model.as_str(), vocabulary.architecture.as_str()), ("gpt2", "llama"));
    assert_eq!((vocabulary.tokens.len(), vocabulary.tokens[127].as_str()), (128, "t127"));
    assert_eq!(vocabulary.special, [Some(1), Some(2), None, None]);
    // The data, and what may lie before it to fill up.
    let head_ends = whole.len() - 125_568 - 32;
    for cut in (0..head_ends).step_by(13) {
        assert!(read(&whole[..cut]).is_err(), "{cut}");
    }
    let changed = |key: &[u8], offset: usize, bytes: &[u8]| {
        let mut copy = whole.clone();
        let at = find(&copy, key) + key.len() + offset;
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        read(&copy).unwrap_err().to_string()
    };
    // Behind a key: the type of its value; of a list the type of its items, and how many there are.
    let refused = changed(b"tokenizer.ggml.bos_token_id", 4, &[200]);
    assert!(refused.contains("its `bos_token_id` is 200, of 128 tokens"), "{refused}");
    let refused = changed(b"tokenizer.ggml.tokens", 8, &[0xff; 8]);
    assert!(refused.contains("a list of 18446744073709551615 items"), "{refused}");
    let refused = changed(b"tokenizer.ggml.tokens", 4, &[9]);
    assert!(refused.starts_with("`a.gguf`: "), "{refused}");
}
