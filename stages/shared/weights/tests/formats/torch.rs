//! Files that PyTorch wrote.

use pipe_weights::WeightsError;
use safetensors::Dtype;

use crate::archive::{Form, Member, Opcodes, archive, one_tensor, torch_file};
use crate::{assert_same, fixture, open_bytes, open_path, refusal};

#[test]
fn a_state_dict_has_the_tensors_that_pytorch_put_into_it() {
    let files = open_path(&fixture("weights/views.bin")).unwrap();
    assert_same(&files, &open_path(&fixture("weights/views.safetensors")).unwrap());
    let entries = files.entries();
    let is_in_place = |name: &str| entries[name].is_in_place();
    assert!(["float32", "rows", "parameter", "scalar", "empty"].into_iter().all(is_in_place));
    assert!(!["transposed", "columns", "half_transposed"].into_iter().any(is_in_place));
    // Two names for one storage: nothing is stored twice.
    assert_eq!(entries["same"].offset, entries["float32"].offset);
    assert_eq!(entries["rows"].offset, entries["float32"].offset + 6 * 4);
    assert_eq!((entries["float16"].dtype, entries["bfloat16"].dtype), (Dtype::F16, Dtype::BF16));
    assert!(entries["float32"].offset.is_multiple_of(64), "PyTorch aligns storages, so that they can be mapped");
}

#[test]
fn a_model_is_the_same_from_its_pickle_as_from_its_safetensors() {
    let files = open_path(&fixture("weights/llama.bin")).unwrap();
    assert_same(&files, &open_path(&fixture("parity/llama/model.safetensors")).unwrap());
    assert!(files.entries().values().all(|entry| entry.is_in_place()));
}

#[test]
fn an_archive_of_more_than_4_gib_is_read_by_its_zip64_records() {
    let pickle = one_tensor(3, 0, &[3], &[1]);
    let member = |name, data| Member { name, data, method: 0 };
    let storage = [1.0_f32, 2.0, 3.0].map(f32::to_le_bytes).concat();
    let bytes = archive(&[member("m/data.pkl", &pickle), member("m/data/0", &storage)], Form::Zip64);
    let files = open_bytes("wide.bin", &bytes).unwrap();
    assert_eq!(files.entries()["x"].shape, [3]);
    // Cut anywhere, it is an error.
    for cut in 0..bytes.len() {
        refusal("cut.bin", &bytes[..cut]);
    }
}

#[test]
fn a_file_from_before_torch_1_6_is_named_as_one() {
    let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
    assert_eq!(refusal("old.bin", legacy), "`old.bin`: it has the format of torch before 1.6, which cannot be mapped");
    assert!(refusal("page.bin", b"<html>not found</html>").contains("not a file of `torch.save`"));
}

#[test]
fn a_compressed_archive_is_refused_with_what_to_do() {
    let pickle = one_tensor(1, 0, &[1], &[1]);
    let members = [
        Member { name: "m/data.pkl", data: &pickle, method: 0 },
        Member { name: "m/data/0", data: &[0; 4], method: 8 },
    ];
    let error = open_bytes("packed.bin", &archive(&members, Form::Plain)).unwrap_err();
    assert_eq!(error.to_string(), "`packed.bin`: `m/data/0` is compressed, but PyTorch stores its members as they are");
    assert!(matches!(&error, WeightsError::Unsupported { help, .. } if help.contains("torch.save(torch.load(")));
}

#[test]
fn numbers_of_a_machine_with_the_other_byte_order_are_refused() {
    let pickle = one_tensor(1, 0, &[1], &[1]);
    let member = |name, data| Member { name, data, method: 0 };
    let members = [member("m/data.pkl", &pickle), member("m/byteorder", b"big"), member("m/data/0", &[0; 4])];
    assert_eq!(refusal("big.bin", &archive(&members, Form::Plain)), "`big.bin`: its byte order is `big`");
}

#[test]
fn what_is_no_dict_of_tensors_is_named() {
    let pickle = |opcodes: Opcodes| torch_file(&opcodes.end(), &[0; 4]);
    let begin = Opcodes::begin;
    let cases = [
        (begin().int(7), "its pickle is a number, not a dict of tensors"),
        (begin().tensor(1, 0, &[1], &[1]), "its pickle is a tensor, not a dict of tensors"),
        (begin().raw(b"}").text("epoch").int(3).raw(b"s"), "`epoch` is a number, not a tensor"),
        (begin().raw(b"}").text("state_dict").raw(b"}s"), "`state_dict` is a dict, not a tensor"),
        (begin().raw(b"}").int(1).tensor(1, 0, &[1], &[1]).raw(b"s"), "a key of its dict is a number, not the name"),
    ];
    for (opcodes, why) in cases {
        let message = refusal("other.bin", &pickle(opcodes));
        assert!(message.contains(why), "{message}");
    }
    let twice =
        begin().raw(b"}").text("x").tensor(1, 0, &[1], &[1]).raw(b"s").text("x").tensor(1, 0, &[1], &[1]).raw(b"s");
    assert_eq!(refusal("twice.bin", &pickle(twice)), "`twice.bin`: `x` is twice in it");
}
