//! Pickles and archives that are meant to harm: each is refused by name, nothing is executed, nothing panics, memory stays small.

use proptest::prelude::*;

use crate::archive::{Form, Member, Opcodes, archive, one_tensor, torch_file};
use crate::{fixture, open_bytes, refusal};

fn refused(opcodes: Opcodes) -> String {
    refusal("evil.bin", &torch_file(&opcodes.end(), &[0; 16]))
}

fn begin() -> Opcodes {
    Opcodes::begin()
}

#[test]
fn an_import_that_a_state_dict_does_not_need_is_refused_by_name() {
    let imports = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "__import__"),
        ("torch", "load"),
        ("torch", "hub.load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.__reduce__"),
        ("", ""),
    ];
    for (module, name) in imports {
        let call = begin().global(module, name).raw(b"(").text("echo owned").raw(b"tR");
        let message = refused(call);
        assert!(message.contains(&format!("its pickle imports `{module}.{name}`")), "{message}");
        // Deep in a dict that is otherwise as it should be.
        let nested = begin().raw(b"}").text("x").tensor(4, 0, &[4], &[1]).raw(b"s").text("y").global(module, name);
        assert!(refused(nested).contains(&format!("`{module}.{name}`")));
    }
    // A name cannot paint the terminal.
    let message = refused(begin().global("os\u{1b}[2J", &"x".repeat(10_000)));
    assert!(!message.contains('\u{1b}') && message.len() < 500, "{message}");
}

#[test]
fn an_opcode_that_a_state_dict_does_not_need_is_refused_by_name() {
    let stack_global = begin().text("os").text("system").raw(b"\x93");
    let cases = [
        (stack_global, "STACK_GLOBAL"),
        (begin().raw(b"(ios\nsystem\n"), "INST"),
        (begin().raw(b"(").global("collections", "OrderedDict").raw(b"o"), "OBJ"),
        (begin().global("collections", "OrderedDict").raw(b")\x81"), "NEWOBJ"),
        (begin().raw(b"\x82\x01"), "EXT1"),
        (begin().raw(b"\x95\0\0\0\0\0\0\0\0"), "FRAME"),
        (begin().raw(b"Pos.system\n"), "PERSID"),
        (begin().raw(b"]"), "EMPTY_LIST"),
        (begin().raw(b"\xff"), "0xff"),
    ];
    for (opcodes, name) in cases {
        let message = refused(opcodes);
        assert!(message.contains(&format!("has the opcode {name}, which a state dict does not need")), "{message}");
    }
    assert!(refused(Opcodes(vec![0x80, 4])).contains("protocol 4"));
}

#[test]
fn calls_and_states_of_what_is_not_to_be_called_are_refused() {
    let call = |opcodes: Opcodes| refused(opcodes);
    assert!(call(begin().global("torch", "FloatStorage").raw(b")R")).contains("calls what is not to be called"));
    assert!(call(begin().global("collections", "OrderedDict").ints(&[1]).raw(b"R")).contains("calls what is not"));
    assert!(call(begin().text("eval").raw(b")R")).contains("calls what is not to be called"));
    assert!(call(begin().global("collections", "OrderedDict").raw(b"}R")).contains("calls with what is no tuple"));
    // BUILD: attributes of an object.
    let state = |name: &str| begin().global("collections", "OrderedDict").raw(b")R}").text(name).raw(b"Nsb");
    let message = call(state("__class__"));
    assert!(message.contains("sets the attribute `__class__`"), "{message}");
    let tensor = begin().tensor(4, 0, &[4], &[1]).raw(b"}").text("_metadata").raw(b"Nsb");
    assert!(call(tensor).contains("sets the state of an object (BUILD)"));
    assert!(open_bytes("fine.bin", &torch_file(&state("_metadata").end(), &[0; 16])).unwrap().entries().is_empty());
}

#[test]
fn a_tensor_that_does_not_fit_its_storage_is_refused() {
    let cases: [(i64, &[i64], &[i64], &str); 11] = [
        (0, &[5], &[1], "lies outside its storage"),
        (1, &[4], &[1], "lies outside its storage"),
        (0, &[2, 2], &[3, 1], "lies outside its storage"),
        (i64::MAX, &[1], &[1], "lies outside its storage"),
        (0, &[2], &[i64::MAX], "lies outside its storage"),
        (0, &[i64::MAX, i64::MAX], &[0, 0], "repeats elements"),
        (0, &[5], &[0], "repeats elements"),
        (0, &[2, 2], &[1], "lies outside its storage"),
        (-1, &[1], &[1], "no number of elements"),
        (0, &[-1], &[1], "no number of elements"),
        (0, &[1], &[-1], "no number of elements"),
    ];
    for (offset, sizes, strides, why) in cases {
        let message = refusal("bad.bin", &torch_file(&one_tensor(4, offset, sizes, strides), &[0; 16]));
        assert!(message.contains("the tensor `x`") && message.contains(why), "{message}");
    }
    // A size of 0 makes any other harmless.
    let files = open_bytes("none.bin", &torch_file(&one_tensor(4, 4, &[0, i64::MAX], &[1, 1]), &[0; 16])).unwrap();
    assert_eq!(files.entries()["x"].size_bytes, 0);
    for (n_elements, why) in [
        (5, "5 elements of F32 in `data/0`, which has 16 bytes"),
        (i64::MAX, "which has 16 bytes"),
        (-1, "-1 elements"),
    ] {
        let message = refusal("size.bin", &torch_file(&one_tensor(n_elements, 0, &[1], &[1]), &[0; 16]));
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn arguments_of_another_form_are_refused() {
    let rebuild = |arguments: &[u8]| {
        let opcodes = begin().raw(b"}").text("x").global("torch._utils", "_rebuild_tensor_v2").raw(arguments);
        refused(opcodes.raw(b"Rs"))
    };
    assert!(rebuild(b")").contains("is not made as"));
    assert!(rebuild(b"(NNNNN}t").contains("a storage of another form"));
    assert!(rebuild(b"(NNNNNNt").contains("hooks or metadata"));
    assert!(rebuild(b"(NNNNN}}Nt").contains("hooks or metadata"));
    // Parameters in parameters are no tensor, and no recursion.
    let mut parameters = begin().raw(b"}").text("x");
    for _ in 0..100_000 {
        parameters = parameters.global("torch._utils", "_rebuild_parameter").raw(b"(");
    }
    parameters = parameters.raw(b"N");
    for _ in 0..100_000 {
        parameters = parameters.raw(b"\x89}tR");
    }
    assert!(refused(parameters.raw(b"s")).contains("is not made as"));
}

#[test]
fn neither_depth_nor_bombs_take_more_than_the_pickle_is_long() {
    // A tuple in a tuple in a tuple ...
    let deep = begin().raw(b"N").raw(&vec![0x85; 1 << 20]);
    assert!(refused(deep).contains("its pickle is a tuple"));
    // Each value twice the one before: 2^200 items if they were copied.
    let mut doubled = begin().raw(b"N");
    for _ in 0..200 {
        doubled = doubled.raw(b"q\x00h\x00\x86");
    }
    assert!(refused(doubled).contains("its pickle is a tuple"));
    // A dict in itself.
    let knot = begin().raw(b"}q\x00").text("x").raw(b"h\x00s");
    assert!(refused(knot).contains("`x` is a dict"));
    // A memo slot far out, a string of 4 GiB, a number of 255 bytes.
    assert!(refused(begin().raw(b"Nr\xff\xff\xff\xff")).contains("is None"));
    assert!(refused(begin().raw(b"X\xff\xff\xff\xff")).contains("is cut off"));
    assert!(refused(begin().raw(b"\x8a\xff").raw(&[0; 255])).contains("more than 64 bits"));
    let large = torch_file(&[0x80; (8 << 20) + 1], &[0; 16]);
    assert!(refusal("large.bin", &large).contains("that is not a state dict"));
}

#[test]
fn a_stack_that_does_not_add_up_is_refused() {
    let cases: [(&[u8], &str); 10] = [
        (b"", "empty stack"),
        (b"NN", "values left over"),
        (b"(", "empty stack"),
        (b"N(", "empty stack"),
        (b"t", "no mark"),
        (b"N(\x85", "empty stack"),
        (b"}(Nu", "key without a value"),
        (b"NNNs", "no dict"),
        (b"h\x07", "never put"),
        (b"N.N", "values left over"),
    ];
    for (bytes, why) in cases {
        let message = refused(begin().raw(bytes));
        assert!(message.contains(why) || why == "no mark" && message.contains("where none is"), "{why}: {message}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = std::fs::read(fixture("weights/views.bin")).unwrap();
    for cut in 0..bytes.len() {
        refusal("cut.bin", &bytes[..cut]);
    }
    // The pickle alone, in an archive that is whole.
    let pickle = one_tensor(4, 0, &[4], &[1]);
    assert!(open_bytes("whole.bin", &torch_file(&pickle, &[0; 16])).is_ok());
    for cut in 0..pickle.len() {
        refusal("cut.bin", &torch_file(&pickle[..cut], &[0; 16]));
    }
}

#[test]
fn an_archive_that_contradicts_itself_is_refused() {
    let pickle = one_tensor(4, 0, &[4], &[1]);
    let member = |name, data| Member { name, data, method: 0 };
    let of = |members: &[Member<'_>]| refusal("zip.bin", &archive(members, Form::Plain));
    let (head, data) = (member("m/data.pkl", &pickle), [0; 16]);
    assert!(
        of(&[member("m/data.pkl", &pickle), member("m/data.pkl", b"")]).contains("two members called `m/data.pkl`")
    );
    assert!(of(&[member("m/data.pkl", &pickle), member("n/data.pkl", b"")]).contains("or several"));
    assert!(of(&[member("data.pkl", &pickle)]).contains("has no `data.pkl`"));
    assert!(of(&[head]).contains("`data/0`, which the archive does not have"));
    // Two records for the same bytes: the second's header is the first's.
    let mut overlap = torch_file(&pickle, &data);
    let records: Vec<usize> = (0..overlap.len() - 4).filter(|at| overlap[*at..].starts_with(b"PK\x01\x02")).collect();
    let first: [u8; 4] = overlap[records[0] + 42..][..4].try_into().unwrap();
    overlap[records[2] + 42..][..4].copy_from_slice(&first);
    assert!(refusal("zip.bin", &overlap).contains("is not where the directory of the archive says"));
    // A member that claims what belongs to the next.
    let mut long = torch_file(&pickle, &data);
    for at in [20, 24] {
        long[records[0] + at..][..4].copy_from_slice(&(pickle.len() as u32 + 60).to_le_bytes());
    }
    assert!(refusal("zip.bin", &long).contains("overlap"));
    // Offsets and sizes beyond the file, in each of the fields.
    for at in [20, 24, 42] {
        let mut far = torch_file(&pickle, &data);
        far[records[1] + at..][..4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        refusal("zip.bin", &far);
        far[records[1] + at..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        refusal("zip.bin", &far);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_pickle_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = open_bytes("random.bin", &torch_file(&[&[0x80, 2][..], &bytes].concat(), &[0; 16]));
    }

    /// Only opcodes that the machine has, with small arguments: these get far.
    #[test]
    fn no_sequence_of_known_opcodes_panics(indices in proptest::collection::vec(0..PARTS.len(), 0..60)) {
        let pickle = indices.iter().fold(begin(), |opcodes, i| opcodes.raw(PARTS[*i])).end();
        let _ = open_bytes("random.bin", &torch_file(&pickle, &[0; 16]));
    }

    #[test]
    fn no_changed_byte_panics(at in 0_usize..4389, byte in any::<u8>(), second in 0_usize..4389) {
        let mut bytes = std::fs::read(fixture("weights/views.bin")).unwrap();
        let last = bytes.len() - 1;
        bytes[at.min(last)] = byte;
        bytes[second.min(last)] ^= 1 << (byte % 8);
        let _ = open_bytes("changed.bin", &bytes);
    }

    #[test]
    fn no_bytes_panic_in_any_format(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (name, beginning) in [("a.bin", &b"PK\x03\x04"[..]), ("a.gguf", b"GGUF\x03\0\0\0"), ("a.safetensors", b"")] {
            let _ = open_bytes(name, &[beginning, &bytes].concat());
        }
    }
}

const PARTS: [&[u8]; 26] = [
    b"(", b"N", b"\x88", b"\x89", b"}", b")", b"K\x01", b"M\x02\x01", b"J\xff\xff\xff\xff", b"\x8a\x01\x04", b"X\x01\0\0\0x", b"\x85",
    b"\x86", b"\x87", b"t", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"s", b"u", b"Q", b"R", b"b", b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0K\x04\x85K\x01\x85\x89}tR",
];
