//! Files of gguf-py, llama.cpp's own writer.

use crate::{assert_same, fixture, open_bytes, open_path, refusal};

/// Where `needle` begins in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).expect("it is there")
}

#[test]
fn a_gguf_has_the_tensors_of_the_model_it_was_made_of() {
    for family in ["llama", "qwen2"] {
        let files = open_path(&fixture(&format!("weights/{family}.gguf"))).unwrap();
        assert_same(&files, &open_path(&fixture(&format!("parity/{family}/model.safetensors"))).unwrap());
        // Only q and k of a Llama lie in another order.
        for (name, entry) in files.entries() {
            let is_permuted = family == "llama" && (name.contains(".q_proj.") || name.contains(".k_proj."));
            assert_eq!(entry.is_contiguous(), !is_permuted, "{family}: {name}");
            assert!(entry.offset.is_multiple_of(32), "{name}");
        }
        let claim = |field: &str| files.claims().iter().find(|claim| claim.field == field).map(|claim| claim.value);
        assert_eq!((claim("num_attention_heads"), claim("num_key_value_heads")), (Some(4.0), Some(2.0)), "{family}");
        assert!(claim("rope_theta").is_some() && claim("rms_norm_eps").is_some());
    }
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
    assert!(changed(architecture_at, b"mamba").contains("its architecture is `mamba`"));
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
