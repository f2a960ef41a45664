//! The stage as the runner calls it, on folders.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pipe_contract::{Artifact, ArtifactKind, Context, Figure, StageError, StageEvent, StageKind, read_yaml};
use pipe_records::examples::{PretokenizedRow, pretokenized_schema, pretokenized_writer};
use pipe_records::packed::NOT_SUPERVISED;
use pipe_records::{Example, ExamplesForm, ExamplesWriter, Marks, Pack, PackedReader, SpecialTokens, open_rows};
use pipe_stage_tokenize::KIND;
use pipe_tokenizer::{ModelTokenizer, train_bpe};

/// A folder with a model and examples; each run gets a work folder of its own.
struct Sandbox {
    folder: tempfile::TempDir,
}

struct Ran {
    packed: Artifact,
    packs: Vec<Pack>,
    events: Vec<StageEvent>,
}

impl Sandbox {
    /// A tokenizer trained on `texts`: id 0 is `<|endoftext|>`, ids 1 to 256 are bytes.
    fn new(texts: &[&str]) -> Self {
        let sandbox = Sandbox { folder: tempfile::tempdir().unwrap() };
        let model = sandbox.path("model");
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("tokenizer.json"), train_bpe(texts, 300, &["<|endoftext|>"]).unwrap()).unwrap();
        std::fs::write(model.join("config.json"), r#"{"vocab_size": 300, "max_position_embeddings": 64}"#).unwrap();
        std::fs::write(model.join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn model(&self) -> Artifact {
        Artifact::from_folder(ArtifactKind::Model, &self.path("model")).unwrap()
    }

    /// Writes `prompt + completion` rows as examples.
    fn examples(&self, rows: &[(&str, &str)]) -> &Self {
        let folder = self.path("examples");
        std::fs::create_dir_all(&folder).unwrap();
        let mut writer = ExamplesWriter::create(&folder).unwrap();
        for (prompt, completion) in rows {
            let (n_prompt, n_completion) = (prompt.chars().count() as u32, completion.chars().count() as u32);
            let text = format!("{prompt}{completion}");
            let example = Example {
                text,
                prompt: 0..n_prompt,
                completion: n_prompt..n_prompt + n_completion,
                ..Example::default()
            };
            writer.write(&example).unwrap();
        }
        writer.finish().unwrap();
        self
    }

    fn run(&self, settings: &str) -> Result<Ran, StageError> {
        run(&self.model(), &self.path("examples"), settings, 2, &self.path("work"))
    }
}

fn run(model: &Artifact, examples: &Path, settings: &str, n_threads: usize, work: &Path) -> Result<Ran, StageError> {
    let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    assert_eq!(problems, []);
    let events = Mutex::new(Vec::new());
    let emit = |event| events.lock().unwrap().push(event);
    std::fs::remove_dir_all(work).ok();
    let mut ctx = Context::new(work, &emit);
    ctx.n_threads = n_threads;
    ctx.inputs.insert("model".into(), model.clone());
    ctx.inputs.insert("examples".into(), Artifact::from_folder(ArtifactKind::Examples, examples).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    pool.install(|| stage.run(&mut ctx))?;
    let packed = Artifact::from_folder(ArtifactKind::Packed, &work.join("outputs/packed")).unwrap();
    let packs = PackedReader::open(&packed).unwrap().packs().collect::<Result<_, _>>().unwrap();
    drop(ctx);
    Ok(Ran { packed, packs, events: events.into_inner().unwrap() })
}

impl Ran {
    fn fact(&self, wanted: &str) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            StageEvent::Fact { name, value } if name == wanted => Some(value.as_str()),
            _ => None,
        })
    }
}

fn supervised(pack: &Pack) -> Vec<u32> {
    let labelled = pack.labels.iter().filter(|label| **label != NOT_SUPERVISED);
    labelled.map(|label| u32::try_from(*label).unwrap()).collect()
}

const ROWS: [(&str, &str); 4] =
    [("Q: one\nA:", " 1"), ("Q: two\nA:", " 2"), ("Q: 你好?\nA:", " 好😀"), ("Q: four\nA:", " four four")];

#[test]
fn without_packing_a_pack_is_a_row_with_its_end() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let ran = sandbox.examples(&ROWS).run("{ max_length: 64 }").unwrap();
    let tokenizer = ModelTokenizer::load(&sandbox.model()).unwrap();
    assert_eq!(ran.packs.len(), ROWS.len());
    for (row, pack) in ran.packs.iter().enumerate() {
        let mut ids = tokenizer.encode(&format!("{}{}", ROWS[row].0, ROWS[row].1)).unwrap().ids;
        ids.push(0);
        assert_eq!(pack.input_ids, ids);
        assert_eq!(supervised(pack), ids, "every token is supervised by default");
        assert_eq!(pack.doc_ids, vec![row as u32; ids.len()]);
        assert_eq!(pack.position_ids, (0..ids.len() as u32).collect::<Vec<_>>());
    }
    assert_eq!(ran.fact("packs"), Some("4"));
}

#[test]
fn completion_only_loss_supervises_completion_and_end() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let ran = sandbox.examples(&ROWS).run("{ max_length: 64, completion_only_loss: true }").unwrap();
    let tokenizer = ModelTokenizer::load(&sandbox.model()).unwrap();
    for (row, pack) in ran.packs.iter().enumerate() {
        let decoded = tokenizer.decode(&supervised(pack)).unwrap();
        assert_eq!(decoded, format!("{}<|endoftext|>", ROWS[row].1), "row {row}");
    }
}

#[test]
fn a_token_across_the_boundary_is_supervised_and_counted() {
    // `abab` is one token, and the completion starts in its middle.
    let sandbox = Sandbox::new(&["abab abab abab abab"]);
    let ran = sandbox.examples(&[("ab", "ab abab")]).run("{ max_length: 64, completion_only_loss: true }").unwrap();
    let tokenizer = ModelTokenizer::load(&sandbox.model()).unwrap();
    assert_eq!(tokenizer.decode(&supervised(&ran.packs[0])).unwrap(), "abab abab<|endoftext|>");
    let logged = ran
        .events
        .iter()
        .any(|e| matches!(e, StageEvent::Log { line } if line.ends_with("which counts as completion: 1")));
    assert!(logged, "{:?}", ran.events);
}

/// A chat of which each turn ends with the special token: `u:TEXT<end>` and `a:TEXT<end>`.
fn chat(turns: &[&str], is_ended: bool) -> Example {
    let (mut text, mut at) = (String::new(), 0);
    let (mut assistant, mut control) = (Vec::new(), Vec::new());
    for (turn, said) in turns.iter().enumerate() {
        let start = at + 2;
        let said_end = start + said.chars().count() as u32;
        let is_open = turn + 1 == turns.len() && !is_ended;
        let end = if is_open { said_end } else { said_end + 13 };
        text +=
            &format!("{}:{said}{}", if turn % 2 == 0 { "u" } else { "a" }, if is_open { "" } else { "<|endoftext|>" });
        control.extend((!is_open).then_some(said_end..end));
        assistant.extend((turn % 2 == 1).then_some(start..end));
        at = end;
    }
    let completion = assistant.last().filter(|last| last.end == at).cloned().unwrap_or(at..at);
    let marks = Marks { assistant, control, special_tokens: SpecialTokens::Template };
    Example { text, prompt: 0..completion.start, completion, marks }
}

fn chats(sandbox: &Sandbox, chats: &[Example]) {
    let folder = sandbox.path("examples");
    std::fs::create_dir_all(&folder).unwrap();
    let form = ExamplesForm { has_turns: true, special_tokens: SpecialTokens::Template, ..ExamplesForm::default() };
    let mut writer = ExamplesWriter::create_with(&folder, form).unwrap();
    chats.iter().for_each(|chat| writer.write(chat).unwrap());
    writer.finish().unwrap();
}

#[test]
fn the_turns_of_the_assistant_are_supervised_and_their_end_is_not_doubled() {
    let sandbox = Sandbox::new(&["hi there, yes no"]);
    let rows = [
        chat(&["hi <|endoftext|>", "yes", "é?", "no"], true),
        chat(&["hi", "yes"], false),
        chat(&["hi", "yes", "more?"], true),
        chat(&["nobody answers"], true),
    ];
    chats(&sandbox, &rows);
    let tokenizer = ModelTokenizer::load(&sandbox.model()).unwrap();
    let learned = |ran: &Ran| -> Vec<String> {
        ran.packs.iter().map(|pack| tokenizer.decode(&supervised(pack)).unwrap()).collect()
    };
    let ran = sandbox.run("{ max_length: 64, assistant_only_loss: true }").unwrap();
    // The third ends with a question, and nothing is appended to it; of the last there is nothing to learn.
    assert_eq!(learned(&ran), ["yes<|endoftext|>no<|endoftext|>", "yes<|endoftext|>", "yes<|endoftext|>"]);
    assert_eq!(ran.fact("dropped documents"), Some("1"));
    let n_ends = |pack: &Pack| pack.input_ids.iter().filter(|id| **id == 0).count();
    // Of the five of the first row's text one is the data's.
    assert_eq!(ran.packs.iter().map(n_ends).collect::<Vec<_>>(), [4, 2, 3]);
    assert_eq!(tokenizer.decode(&ran.packs[0].input_ids).unwrap(), rows[0].text);
    let last = sandbox.run("{ max_length: 64, assistant_only_loss: true, completion_only_loss: true }").unwrap();
    assert_eq!(learned(&last), ["no<|endoftext|>", "yes<|endoftext|>"]);
    let all = sandbox.run("{ max_length: 64, append_eos: false }").unwrap();
    assert_eq!((all.packs.len(), learned(&all)[1].as_str()), (4, "u:hi<|endoftext|>a:yes"));
    let error = sandbox.examples(&ROWS).run("{ assistant_only_loss: true, max_length: 64 }").err().unwrap();
    assert_eq!(error.slug, "no-turns");
}

#[test]
fn show_prints_a_pack_with_its_mask() {
    let sandbox = Sandbox::new(&["hi there, yes no"]);
    chats(&sandbox, &[chat(&["hi", "yes", "é?", "no"], true)]);
    let ran = sandbox.run("{ max_length: 64, assistant_only_loss: true }").unwrap();
    let shown = KIND.show("packed", &ran.packed, 1).unwrap();
    let expected = "the text of pack 0 (⟦learned⟧)\ndocument 0\n  u:hi<|endoftext|>a:⟦yes<|endoftext|>⟧u:é?<|endofte\n  xt|>a:⟦no<|endoftext|>⟧\n";
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn the_words_of_a_special_token_are_counted() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let ran = sandbox.examples(&[("a<|endoftext|>", "b"), ("c", "d")]).run("{ max_length: 64 }").unwrap();
    let warned = |e: &StageEvent| matches!(e, StageEvent::Warning { line } if line.starts_with("1 of 2 texts have the words of a special token"));
    assert!(ran.events.iter().any(warned), "{:?}", ran.events);
}

#[test]
fn packs_keep_documents_apart_and_lose_none() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let rows: Vec<(String, String)> =
        (0..300).map(|i| (format!("Q: {i}\nA:"), " one".repeat(1 + i * 7 % 11))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    sandbox.examples(&rows);
    let single = sandbox.run("{ max_length: 64 }").unwrap();
    let packed = sandbox.run("{ max_length: 64, packing: true }").unwrap();

    let mut seen = vec![None; rows.len()];
    for pack in &packed.packs {
        assert!(pack.input_ids.len() <= 64);
        let mut start = 0;
        for document in pack.doc_ids.chunk_by(|a, b| a == b) {
            let range = start..start + document.len();
            start = range.end;
            let part = Pack {
                input_ids: pack.input_ids[range.clone()].to_vec(),
                labels: pack.labels[range.clone()].to_vec(),
                position_ids: pack.position_ids[range.clone()].to_vec(),
                doc_ids: document.to_vec(),
            };
            let slot: &mut Option<Pack> = &mut seen[document[0] as usize];
            assert!(slot.replace(part).is_none(), "document {} is there twice", document[0]);
        }
    }
    let seen: Vec<Pack> = seen.into_iter().map(|document| document.expect("every document is packed")).collect();
    assert_eq!(seen, single.packs);
    assert!(packed.packs.len() * 4 < single.packs.len() * 3, "{} packs", packed.packs.len());
    let shown = KIND.show("packed", &packed.packed, 2).unwrap();
    assert!(shown.contains("pack 1") && shown.contains("documents (tokens): 0 ("), "{shown}");
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let rows: Vec<(String, String)> = (0..2500).map(|i| (format!("Q: {i}\nA:"), " 你".repeat(1 + i * 7 % 9))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    sandbox.examples(&rows);
    for strategy in ["packing: false", "packing: true", "packing: true, packing_strategy: first_fit"] {
        let settings = format!("{{ max_length: 64, {strategy}, completion_only_loss: true }}");
        let bytes = |n_threads: usize| {
            let work = sandbox.path("work");
            let ran = run(&sandbox.model(), &sandbox.path("examples"), &settings, n_threads, &work).unwrap();
            ["packed.parquet", "packed.json", "preview.json"]
                .map(|name| std::fs::read(ran.packed.file(name).unwrap()).unwrap())
        };
        let one = bytes(1);
        assert!(one == bytes(2) && one == bytes(3), "the bytes depend on the number of threads: {strategy}");
    }
}

/// The stream of all documents, cut every 16 tokens: what TRL's `wrapped` makes of a data set of one batch.
#[test]
fn wrapped_packs_are_the_stream_of_documents_cut_at_max_length() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    sandbox.examples(&ROWS);
    let single = sandbox.run("{ max_length: 64, completion_only_loss: true }").unwrap();
    let stream = |part: fn(&Pack) -> Vec<i64>| single.packs.iter().flat_map(part).collect::<Vec<i64>>();
    let ids = stream(|pack| pack.input_ids.iter().map(|id| i64::from(*id)).collect());
    let labels = stream(|pack| pack.labels.iter().map(|label| i64::from(*label)).collect());

    let settings = "{ max_length: 16, packing: true, packing_strategy: wrapped, completion_only_loss: true }";
    let ran = sandbox.run(settings).unwrap();
    assert_eq!(ran.packs.len(), ids.len().div_ceil(16));
    for (i, pack) in ran.packs.iter().enumerate() {
        let range = 16 * i..(16 * i + 16).min(ids.len());
        assert!(pack.input_ids.iter().map(|id| i64::from(*id)).eq(ids[range.clone()].iter().copied()), "pack {i}");
        assert!(
            pack.labels.iter().map(|label| i64::from(*label)).eq(labels[range.clone()].iter().copied()),
            "pack {i}"
        );
        assert_eq!(pack.position_ids, (0..range.len() as u32).collect::<Vec<_>>());
        assert_eq!(pack.doc_ids, vec![i as u32; range.len()]);
    }
    let warned = ran.events.iter().find_map(|event| match event {
        StageEvent::Warning { line } => Some(line.as_str()),
        _ => None,
    });
    let n_packs = ran.packs.len();
    let expected = "documents see each other (`packing_strategy: wrapped`): ";
    assert!(
        warned.is_some_and(|line| line.starts_with(expected) && line.contains(&format!("of {n_packs} packs"))),
        "{warned:?}"
    );
    assert!(sandbox.run("{ max_length: 16, packing: true }").unwrap().fact("cut documents").is_none());
    assert_eq!((ran.fact("documents"), ran.fact("dropped documents")), (Some("4"), None));
}

#[test]
fn wrapped_has_the_same_bytes_on_any_number_of_threads_and_keeps_every_token() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let rows: Vec<(String, String)> = (0..2500).map(|i| (format!("Q: {i}\nA:"), " 你".repeat(1 + i * 7 % 9))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    sandbox.examples(&rows);
    let settings = "{ max_length: 64, packing: true, packing_strategy: wrapped }";
    let ran = |n_threads| {
        run(&sandbox.model(), &sandbox.path("examples"), settings, n_threads, &sandbox.path("work")).unwrap()
    };
    let bytes = |ran: &Ran| {
        ["packed.parquet", "packed.json"].map(|name| std::fs::read(ran.packed.file(name).unwrap()).unwrap())
    };
    let one = bytes(&ran(1));
    let three = ran(3);
    assert!(one == bytes(&three), "the bytes depend on the number of threads");
    let info = PackedReader::open(&three.packed).unwrap().info().clone();
    let single = sandbox.run("{ max_length: 64 }").unwrap();
    let n_tokens: usize = single.packs.iter().map(|pack| pack.input_ids.len()).sum();
    assert_eq!((info.n_tokens, info.n_documents, info.n_truncated_tokens), (n_tokens as u64, 2500, 0));
    assert!(info.fill > 0.99 && info.n_truncated_documents > 100, "{info:?}");
}

/// Pieces are documents of their own: nothing is lost but pieces of which nothing is learned, and those are counted.
#[test]
fn bfd_split_packs_the_pieces_of_long_documents() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let rows: Vec<(String, String)> = (0..60).map(|i| ("x y z ".repeat(i % 4), " one".repeat(1 + i * 5 % 8))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let whole = sandbox.examples(&rows).run("{ max_length: 64, completion_only_loss: true }").unwrap();
    let documents: Vec<Pack> = whole.packs;
    assert!(documents.iter().all(|pack| pack.input_ids.len() < 64), "none is cut");

    let settings = "{ max_length: 10, packing: true, packing_strategy: bfd_split, completion_only_loss: true }";
    let ran = sandbox.run(settings).unwrap();
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for pack in &ran.packs {
        assert!(pack.input_ids.len() <= 10);
        let mut start = 0;
        for piece in pack.doc_ids.chunk_by(|a, b| a == b) {
            let range = start..start + piece.len();
            start = range.end;
            assert!(pack.position_ids[range.clone()].iter().copied().eq(0..piece.len() as u32));
            found.push((piece[0], pack.input_ids[range.clone()].to_vec(), pack.labels[range].to_vec()));
        }
    }
    let (mut n_dropped, mut n_dropped_tokens) = (0, 0);
    for (row, document) in (0..).zip(&documents) {
        for (ids, labels) in document.input_ids.chunks(10).zip(document.labels.chunks(10)) {
            if labels[1..].iter().any(|label| *label != NOT_SUPERVISED) {
                expected.push((row, ids.to_vec(), labels.to_vec()));
            } else {
                (n_dropped, n_dropped_tokens) = (n_dropped + 1, n_dropped_tokens + ids.len() as u64);
            }
        }
    }
    found.sort();
    expected.sort();
    assert!(found == expected, "the packs hold other pieces");

    let info = PackedReader::open(&ran.packed).unwrap().info().clone();
    assert_eq!((info.n_documents, info.n_truncated_tokens), (expected.len() as u64, 0));
    assert_eq!((info.n_dropped_documents, info.n_dropped_tokens), (n_dropped, n_dropped_tokens));
    assert!(n_dropped > 0 && info.n_truncated_documents > 0, "{info:?}");
    let n_tokens: usize = documents.iter().map(|pack| pack.input_ids.len()).sum();
    assert_eq!(info.n_tokens + info.n_dropped_tokens, n_tokens as u64);
    assert_eq!(ran.fact("dropped tokens"), Some(n_dropped_tokens.to_string().as_str()));
    assert!(ran.fact("pieces").is_some());
}

#[test]
fn first_fit_opens_a_pack_only_where_no_earlier_one_has_room() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let rows: Vec<(String, String)> =
        (0..300).map(|i| (format!("Q: {i}\nA:"), " one".repeat(1 + i * 7 % 11))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let single = sandbox.examples(&rows).run("{ max_length: 64 }").unwrap();
    let ran = sandbox.run("{ max_length: 64, packing: true, packing_strategy: first_fit }").unwrap();
    let mut packs: Vec<Vec<u32>> = Vec::new();
    for (row, document) in (0..).zip(&single.packs) {
        let n_tokens =
            |pack: &Vec<u32>| pack.iter().map(|row| single.packs[*row as usize].input_ids.len()).sum::<usize>();
        match packs.iter_mut().find(|pack| n_tokens(pack) + document.input_ids.len() <= 64) {
            Some(pack) => pack.push(row),
            None => packs.push(vec![row]),
        }
    }
    let found = ran.packs.iter().map(|pack| pack.doc_ids.chunk_by(|a, b| a == b).map(|ids| ids[0]).collect());
    assert_eq!(found.collect::<Vec<Vec<u32>>>(), packs);
    assert!(packs.len() < 250, "{} packs", packs.len());
}

#[test]
fn show_and_report_name_the_strategy_and_that_wrapped_contaminates() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    sandbox.examples(&ROWS);
    for (settings, name) in [
        ("{ max_length: 64 }", "none"),
        ("{ max_length: 64, packing: true }", "bfd"),
        ("{ max_length: 64, packing: true, packing_strategy: first_fit }", "first_fit"),
        ("{ max_length: 16, packing: true, packing_strategy: bfd_split }", "bfd_split"),
        ("{ max_length: 16, packing: true, packing_strategy: wrapped }", "wrapped: documents see each other"),
    ] {
        let ran = sandbox.run(settings).unwrap();
        let shown = KIND.show("packed", &ran.packed, 1).unwrap();
        assert!(shown.contains(&format!("\npacking: {name}\n")), "{shown}");
        let figures = KIND.figures("packed", &ran.packed).unwrap();
        let Figure::Facts(facts) = &figures[0] else { panic!("{figures:?}") };
        assert_eq!(facts.facts[0], ("packing".to_string(), name.to_string()));
    }
}

#[test]
fn wrapped_of_prompts_alone_has_nothing_to_learn_and_pretokenized_rows_are_refused() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let settings =
        "{ max_length: 4, packing: true, packing_strategy: wrapped, completion_only_loss: true, append_eos: false }";
    let error = sandbox.examples(&[("x y z x y z", ""), ("z y x", "")]).run(settings).err().unwrap();
    assert_eq!(error.slug, "nothing-to-learn");
    write_pretokenized(
        &sandbox.path("examples"),
        &[PretokenizedRow { labels: Some(vec![1, 2]), input_ids: vec![1, 2], ..PretokenizedRow::default() }],
    );
    let error = sandbox.run("{ max_length: 4, packing: true, packing_strategy: wrapped }").err().unwrap();
    assert_eq!(error.slug, "unsupported-setting");
}

#[test]
fn a_report_shows_counts_and_the_first_packs() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let ran = sandbox.examples(&ROWS).run("{ max_length: 64, completion_only_loss: true }").unwrap();
    let figures = KIND.figures("packed", &ran.packed).unwrap();
    let [Figure::Facts(facts), Figure::Chart(chart)] = figures.as_slice() else { panic!("{figures:?}") };
    for (name, value) in [("packs", "4"), ("documents", "4"), ("documents per pack", "1.00")] {
        assert!(facts.facts.contains(&(name.to_string(), value.to_string())), "{name}: {facts:?}");
    }
    let lengths: Vec<f64> = ran.packs.iter().map(|pack| pack.input_ids.len() as f64).collect();
    let supervised_of = |pack: &Pack| supervised(pack).len() as f64;
    assert!(chart.series[0].points.iter().map(|point| point.1).eq(lengths));
    assert!(chart.series[1].points.iter().map(|point| point.1).eq(ran.packs.iter().map(supervised_of)));
}

/// trl#3927: truncation cuts the whole completion off, and the mean over no token is NaN.
#[test]
fn a_row_whose_completion_is_cut_off_is_dropped_and_counted() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let long_prompt = "x y z ".repeat(30);
    sandbox.examples(&[(&long_prompt, " never seen"), ("Q:", " a"), ("", &long_prompt)]);
    let ran = sandbox.run("{ max_length: 64, completion_only_loss: true }").unwrap();
    let rows: Vec<u32> = ran.packs.iter().map(|pack| pack.doc_ids[0]).collect();
    assert_eq!(rows, [1, 2]);
    assert_eq!(ran.fact("dropped documents"), Some("1"));
    let n_tokens = ModelTokenizer::load(&sandbox.model()).unwrap().encode(&long_prompt).unwrap().ids.len() + 1;
    assert_eq!(ran.fact("truncated tokens"), Some((n_tokens - 64).to_string().as_str()));
    let n_dropped = n_tokens + ModelTokenizer::load(&sandbox.model()).unwrap().encode(" never seen").unwrap().ids.len();
    assert_eq!(ran.fact("dropped tokens"), Some(n_dropped.to_string().as_str()));

    let only_long = sandbox.examples(&[(&long_prompt, " never seen")]);
    let error = only_long.run("{ max_length: 64, completion_only_loss: true }").err().unwrap();
    assert_eq!(error.slug, "nothing-to-learn");
}

#[test]
fn long_documents_can_be_dropped_or_refused() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let long = "x y z ".repeat(30);
    sandbox.examples(&[("Q:", " a"), ("Q:", &long)]);
    let ran = sandbox.run("{ max_length: 64, truncation: drop }").unwrap();
    assert_eq!((ran.packs.len(), ran.fact("dropped documents")), (1, Some("1")));
    let error = sandbox.run("{ max_length: 64, truncation: error }").err().unwrap();
    assert_eq!(error.slug, "document-too-long");
    assert!(error.message.starts_with("row 1 of the examples"), "{}", error.message);
}

#[test]
fn max_length_above_the_positions_names_both() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let error = sandbox.examples(&ROWS).run("{ max_length: 65 }").err().unwrap();
    assert!(error.message.contains("`max_length` is 65, but the model has 64 positions"), "{}", error.message);
}

#[test]
fn a_model_without_end_token_is_refused_unless_told() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    std::fs::remove_file(sandbox.path("model/tokenizer_config.json")).unwrap();
    sandbox.examples(&ROWS);
    assert_eq!(sandbox.run("{ max_length: 64 }").err().unwrap().slug, "no-end-token");
    let ran = sandbox.run("{ max_length: 64, append_eos: false }").unwrap();
    assert!(ran.packs.iter().all(|pack| !pack.input_ids.contains(&0)));
}

#[test]
fn pretokenized_rows_pass_unchanged_and_in_order() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let folder = sandbox.path("examples");
    std::fs::create_dir_all(&folder).unwrap();
    let rows: Vec<PretokenizedRow> = (0..3000u32)
        .map(|i| {
            let n = 2 + i % 30;
            PretokenizedRow {
                input_ids: (0..n).map(|t| (i * 31 + t * 7) % 300).collect(),
                labels: Some((0..n).map(|t| if t % 3 == 0 { -100 } else { ((i + t) % 300) as i32 }).collect()),
                ..PretokenizedRow::default()
            }
        })
        .collect();
    write_pretokenized(&folder, &rows);
    let ran = sandbox.run("{ max_length: 64 }").unwrap();
    assert_eq!(ran.packs.len(), rows.len());
    for (i, (pack, row)) in ran.packs.iter().zip(&rows).enumerate() {
        assert_eq!((&pack.input_ids, Some(&pack.labels)), (&row.input_ids, row.labels.as_ref()));
        assert_eq!(pack.doc_ids, vec![i as u32; row.input_ids.len()]);
    }
    let too_long = sandbox.run("{ max_length: 20 }").err().unwrap();
    assert_eq!(too_long.slug, "document-too-long");
    assert_eq!(too_long.help.as_deref(), Some("raise `max_length`, or shorten the rows"));
    for written in ["packing: true", "completion_only_loss: false", "append_eos: false", "truncation: drop"] {
        let error = sandbox.run(&format!("{{ max_length: 64, {written} }}")).err().unwrap();
        let name = written.split(':').next().unwrap();
        assert_eq!(error.slug, "unsupported-setting", "{written}");
        assert!(error.message.starts_with(&format!("`{name}` cannot be used")), "{}", error.message);
    }
}

#[test]
fn pretokenized_rows_that_teach_nothing_are_not_told_of_settings_they_cannot_have() {
    let sandbox = Sandbox::new(&["Q: one\nA: two"]);
    let folder = sandbox.path("examples");
    std::fs::create_dir_all(&folder).unwrap();
    let row =
        PretokenizedRow { input_ids: vec![5, 6], labels: Some(vec![5, NOT_SUPERVISED]), ..PretokenizedRow::default() };
    write_pretokenized(&folder, &[row]);
    let error = sandbox.run("{ max_length: 64 }").err().unwrap();
    assert_eq!(error.slug, "nothing-to-learn");
    assert!(error.help.as_deref().unwrap().starts_with("label tokens"), "{:?}", error.help);
}

fn write_pretokenized(folder: &Path, rows: &[PretokenizedRow]) {
    use arrow::array::{ArrayRef, Int32Builder, ListBuilder, RecordBatch, UInt32Builder};
    let schema = pretokenized_schema(&["labels"]);
    let item = |i: usize| match schema.field(i).data_type() {
        arrow::datatypes::DataType::List(item) => item.clone(),
        other => panic!("{other} is no list"),
    };
    let mut ids = ListBuilder::new(UInt32Builder::new()).with_field(item(0));
    let mut labels = ListBuilder::new(Int32Builder::new()).with_field(item(1));
    for row in rows {
        ids.values().append_slice(&row.input_ids);
        ids.append(true);
        labels.values().append_slice(row.labels.as_deref().unwrap());
        labels.append(true);
    }
    let columns: Vec<ArrayRef> = vec![std::sync::Arc::new(ids.finish()), std::sync::Arc::new(labels.finish())];
    let mut writer = pretokenized_writer(folder, &["labels"]).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    writer.finish().unwrap();
}

#[test]
fn alpaca_rows_are_the_plain_encoding_and_an_end() {
    let Some(data) = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from) else {
        writeln!(std::io::stderr(), "SKIPPED alpaca_rows_are_the_plain_encoding_and_an_end: PIPE_TEST_DATA is not set")
            .expect("stderr can be written to");
        return;
    };
    let rows = Artifact::from_folder(ArtifactKind::Rows, &data.join("data/alpaca_en_demo_hf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<String> = open_rows(&rows).unwrap().flat_map(|batch| texts_of(&batch.unwrap())).collect();
    let mut writer = ExamplesWriter::create(folder.path()).unwrap();
    for text in &texts {
        let start = text.find("### Response:").unwrap();
        let start = text[..start].chars().count() as u32 + 13;
        let example = Example {
            text: text.clone(),
            prompt: 0..start,
            completion: start..text.chars().count() as u32,
            ..Example::default()
        };
        writer.write(&example).unwrap();
    }
    writer.finish().unwrap();
    let model = Artifact::from_folder(ArtifactKind::Model, &data.join("models/stories260K")).unwrap();
    let plain = tokenizers::Tokenizer::from_file(data.join("models/stories260K/tokenizer.json")).unwrap();
    let work = folder.path().join("work");
    let ran = run(&model, folder.path(), "{ max_length: 512, packing: true }", 2, &work).unwrap();

    let mut seen = vec![0; texts.len()];
    let (mut n_tokens, mut n_cut) = (0, 0);
    for pack in &ran.packs {
        let mut start = 0;
        for document in pack.doc_ids.chunk_by(|a, b| a == b) {
            let row = document[0] as usize;
            let mut expected = plain.encode(texts[row].as_str(), true).unwrap().get_ids().to_vec();
            assert_eq!(expected[0], 1);
            expected.push(2);
            n_tokens += expected.len();
            n_cut += expected.len().saturating_sub(512);
            expected.truncate(512);
            assert_eq!(pack.input_ids[start..start + document.len()], expected, "row {row}");
            start += document.len();
            seen[row] += 1;
        }
        assert_eq!(supervised(pack), pack.input_ids);
    }
    assert!(seen.iter().all(|n| *n == 1));
    let info = PackedReader::open(&ran.packed).unwrap().info().clone();
    assert_eq!((info.n_tokens + info.n_truncated_tokens, info.n_truncated_tokens), (n_tokens as u64, n_cut as u64));
    assert!(info.fill > 0.96, "fill {}", info.fill);
}

fn texts_of(batch: &arrow::array::RecordBatch) -> Vec<String> {
    use arrow::array::AsArray;
    let column = batch.column_by_name("text").unwrap().as_string::<i32>();
    (0..batch.num_rows()).map(|row| column.value(row).to_string()).collect()
}
