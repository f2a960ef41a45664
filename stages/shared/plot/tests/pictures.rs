//! Pictures as files: not blank, with their texts, and the same bytes everywhere.

use std::path::Path;

use pipe_figures::{Chart, Mark, Series, Threshold};
use pipe_plot::{SIZE, draw_files, svg};

type Point = (f64, f64);

fn chart(mark: Mark, series: Vec<(&str, Vec<Point>)>) -> Chart {
    let series = series.into_iter().map(|(name, points)| Series { name: name.into(), points }).collect();
    Chart {
        title: "Loss of a & b".into(),
        x_label: "optimizer step".into(),
        y_label: "loss (nats per token)".into(),
        mark,
        series,
        threshold: None,
        caption: "2.313 -> 2.101".into(),
    }
}

/// A noisy curve that falls, without a random number generator.
fn falling(n: u32) -> Vec<Point> {
    (0..n)
        .map(|i| (f64::from(i + 1), 2.0 + 3.0 / (1.0 + f64::from(i) / 40.0) + f64::from(i * 7919 % 101) / 250.0))
        .collect()
}

fn means(points: &[Point], window: usize) -> Vec<Point> {
    let mean = |part: &[Point]| part.iter().map(|point| point.1).sum::<f64>() / part.len() as f64;
    points.windows(window).map(|part| (part[window - 1].0, mean(part))).collect()
}

fn two_lines() -> Chart {
    let raw = falling(400);
    let smooth = means(&raw, 20);
    chart(Mark::Line, vec![("each optimizer step", raw), ("mean of the last 20", smooth)])
}

fn bars() -> Chart {
    let points = (0..40).map(|i| (100.0 + 25.0 * f64::from(i), f64::from((i * 37 % 41) * (40 - i) * 3))).collect();
    let threshold = Some(Threshold { x: 1024.0, label: "threshold 1,024".into() });
    Chart { threshold, ..chart(Mark::Bars { width: 25.0 }, vec![("texts", points)]) }
}

struct Picture {
    svg: String,
    image: image::RgbImage,
    digests: [String; 2],
}

fn draw(chart: &Chart) -> Picture {
    let folder = tempfile::tempdir().expect("a temporary folder");
    draw_files(folder.path(), "a", chart).expect("two files");
    keep(folder.path(), chart);
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let digests = ["a.svg", "a.png"].map(|name| blake3::hash(&bytes(name)).to_hex().to_string());
    let image = image::load_from_memory(&bytes("a.png")).expect("a PNG").to_rgb8();
    Picture { svg: String::from_utf8(bytes("a.svg")).expect("text"), image, digests }
}

/// `PIPE_KEEP_PICTURES=FOLDER` keeps them, to be looked at.
fn keep(folder: &Path, chart: &Chart) {
    if let Some(to) = std::env::var_os("PIPE_KEEP_PICTURES") {
        let name = format!("{}-{}", chart.title, chart.series.iter().map(|s| s.points.len()).sum::<usize>());
        for extension in ["svg", "png"] {
            std::fs::copy(
                folder.join("a.png").with_extension(extension),
                Path::new(&to).join(&name).with_extension(extension),
            )
            .expect("the folder can be written to");
        }
    }
}

impl Picture {
    fn count(&self, color: [u8; 3]) -> usize {
        self.image.pixels().filter(|pixel| pixel.0 == color).count()
    }

    fn places(&self, tag: &str) -> usize {
        self.svg.matches(tag).count()
    }
}

const BLUE: [u8; 3] = [76, 120, 168];
const PALE_BLUE: [u8; 3] = [165, 187, 211];
const ORANGE: [u8; 3] = [214, 107, 18];
const GRID: [u8; 3] = [226, 229, 233];

#[test]
fn the_bytes_are_the_same_everywhere() {
    let digests = [draw(&two_lines()).digests, draw(&bars()).digests];
    assert_eq!(digests, GOLDEN, "changed on purpose? look at them, and raise the version of each kind that draws");
}

const GOLDEN: [[&str; 2]; 2] = [
    [
        "7b86df72e6d77fb775c92cb65a0a2603463b3787922dd1de63f23541a41ea851",
        "c070afaa1e3b6ada35ecf9f733be224a28562404ce8894644d82deb3230350c5",
    ],
    [
        "0548b6afb08cd850bdbda97283723d80f22cc16d60ddb522748e5af5f6be75bf",
        "7b7398cb608d3ea81f5f6c3f9af7109108988d107d158f387cc89c5ed29bdce3",
    ],
];

#[test]
fn lines_have_their_texts_colours_and_grid() {
    let picture = draw(&two_lines());
    for text in [
        "<title>Loss of a &amp; b</title>",
        "optimizer step\n",
        "loss (nats per token)\n",
        "2.313 -&gt; 2.101\n",
        "each optimizer step\n",
        "mean of the last 20\n",
        "DejaVu Sans",
    ] {
        assert!(picture.svg.contains(text), "the picture does not say {text:?}");
    }
    assert_eq!(picture.image.dimensions(), SIZE);
    assert!(picture.count(ORANGE) > 1000, "{} pixels of the last line", picture.count(ORANGE));
    assert!(picture.count(PALE_BLUE) > 300, "{} pixels of the first line", picture.count(PALE_BLUE));
    // Right of the curves, and above them.
    let rows = (0..SIZE.1).filter(|y| picture.image.get_pixel(1160, *y).0 == GRID).count();
    let columns = (0..SIZE.0).filter(|x| picture.image.get_pixel(*x, 152).0 == GRID).count();
    assert!(rows >= 4 && columns >= 6, "{rows} horizontal and {columns} vertical grid lines");
}

#[test]
fn bars_stand_on_zero_beside_a_dashed_threshold() {
    let picture = draw(&bars());
    assert!(picture.svg.contains("threshold 1,024"));
    assert_eq!(picture.places("fill=\"#4C78A8\""), 39, "each count that is not 0 has a bar");
    // The zero line is at the same place for all: above it blue, below it nothing.
    let lowest = (0..SIZE.1).rev().find(|y| (0..SIZE.0).any(|x| picture.image.get_pixel(x, *y).0 == BLUE));
    assert_eq!(lowest, Some(603));
    let dashes = (0..SIZE.1).filter(|y| (0..SIZE.0).any(|x| picture.image.get_pixel(x, *y).0 == [192, 57, 43])).count();
    assert!((250..400).contains(&dashes), "{dashes} rows of dashes, of 480");
}

#[test]
fn a_hundred_thousand_points_are_thinned_and_keep_their_peaks() {
    let mut points: Vec<Point> = (0..100_000).map(|i| (f64::from(i), f64::from(i * 7919 % 1000))).collect();
    points[31_337].1 = 5000.0;
    let picture = draw(&chart(Mark::Line, vec![("loss", points.clone())]));
    assert!(picture.svg.len() < 100_000, "{} bytes", picture.svg.len());
    let top = (100..300).find(|y| (0..SIZE.0).any(|x| picture.image.get_pixel(x, *y).0 == BLUE));
    assert!(top.is_some_and(|y| y < 160), "the peak is drawn down to {top:?} only");
    let bars = draw(&chart(Mark::Bars { width: 1.0 }, vec![("loss", points)]));
    assert!(bars.places("<rect") < 1500, "{} rectangles", bars.places("<rect"));
}

#[test]
fn whatever_the_points_are_there_is_a_picture() {
    let odd = [
        vec![],
        vec![(1.0, 2.5)],
        vec![(0.0, 0.0)],
        (0..50).map(|i| (f64::from(i), 2.5)).collect(),
        vec![(1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 1.0), (4.0, f64::NEG_INFINITY), (5.0, 2.0)],
        vec![(f64::NAN, f64::NAN)],
        vec![(0.0, -1e300), (1e300, 1e300)],
        vec![(5.0, 1e-300), (5.0, 3e-300), (5.0, 2e-300)],
        vec![(1e15, 1e15 + 1.0), (1e15 + 1.0, 1e15 + 2.0)],
        vec![(3.0, -2.0), (1.0, -5.0)],
    ];
    for points in odd {
        for mark in [Mark::Line, Mark::Bars { width: 1.0 }] {
            let n_finite = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).count();
            let picture = draw(&chart(mark, vec![("a", points.clone())]));
            let is_shown = picture.count(BLUE) > 0;
            let wants_mark =
                n_finite > 0 && (mark == Mark::Line || points.iter().any(|(_, y)| *y != 0.0 && y.is_finite()));
            assert_eq!(is_shown, wants_mark, "{mark:?} {points:?}");
            assert_eq!(picture.svg.contains("no data"), n_finite == 0, "{points:?}");
        }
    }
    let nothing = Chart { series: Vec::new(), ..two_lines() };
    assert!(svg(&nothing).expect("a picture").contains("no data"));
}

#[test]
fn texts_cannot_break_the_document() {
    let mut chart = two_lines();
    chart.title = "</svg><script>\u{1b}[31m\n".repeat(30);
    chart.series[0].name = "\"&'<\u{0}".into();
    let svg = svg(&chart).expect("a picture");
    assert!(!svg.contains("<script") && !svg.contains('\u{1b}') && !svg.contains('\u{0}'));
    assert!(svg.contains("\u{2026}"), "a title wider than the picture is cut");
    assert_eq!(svg.matches("</svg>").count(), 1);
}

#[test]
fn a_straight_line_stays_straight() {
    let rate = |i: u32| 2e-4 * (1.0 - f64::from(i) / 650.0);
    let picture =
        draw(&chart(Mark::Line, vec![("learning rate", (0..650).map(|i| (f64::from(i), rate(i))).collect())]));
    let path = picture.svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a line");
    assert!(path.split_whitespace().count() <= 4, "{path}");
    for label in ["5e-5\n", "1.5e-4\n", "2e-4\n"] {
        assert!(picture.svg.contains(label), "{label}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = draw_files(Path::new("/nowhere/at/all"), "a", &two_lines()).expect_err("no such folder");
    assert_eq!(error.to_string(), "failed to write `/nowhere/at/all/a.svg`");
}
