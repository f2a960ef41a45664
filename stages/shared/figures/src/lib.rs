//! What a stage has to show of an artifact, as data: whoever shows it chooses paper and colours.
//!
//! ```text
//! StageKind::figures --> [Figure] --> `pipe report`: HTML, light and dark, screen and print
//!                                \--> pipe-plot: PNG and SVG files in an artifact
//! ```
//!
//! It deliberately draws nothing and depends on nothing.

/// One thing to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    /// Numbers over numbers.
    Chart(Chart),
    /// Rows and columns of text.
    Table(Table),
    /// Names with values.
    Facts(Facts),
    /// Texts side by side: a prompt with what was expected of it and what models said.
    Samples(Samples),
}

/// Numbers over numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// A few words: `Loss`.
    pub title: String,
    /// Name of the horizontal axis, with its unit in brackets: `length of a text (characters)`.
    pub x_label: String,
    /// Name of the vertical axis, likewise.
    pub y_label: String,
    /// How points are drawn.
    pub mark: Mark,
    /// What is drawn; several have a legend.
    pub series: Vec<Series>,
    /// A dashed vertical line with its name.
    pub threshold: Option<Threshold>,
    /// One line of numbers below the title; may be empty.
    pub caption: String,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// Points joined by a line.
    Line,
    /// A bar from each point's x, `width` wide, from 0 to y.
    Bars {
        /// In units of x.
        width: f64,
    },
}

/// One line, or one set of bars.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// As the legend has it.
    pub name: String,
    /// (x, y), finite, x rising.
    pub points: Vec<(f64, f64)>,
}

/// A dashed vertical line.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Where, in units of x.
    pub x: f64,
    /// Its name: `threshold 1,024`.
    pub label: String,
}

/// Rows and columns of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// A few words.
    pub title: String,
    /// Heads of the columns, units in brackets.
    pub columns: Vec<String>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// Names with values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A few words.
    pub title: String,
    /// Name and value, with its unit.
    pub facts: Vec<(String, String)>,
}

/// Texts side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    /// A few words.
    pub title: String,
    /// One per prompt.
    pub samples: Vec<Sample>,
}

/// One prompt and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What the model was given.
    pub prompt: String,
    /// Who said it (`expected`, `base`, `with adapter`) and what.
    pub answers: Vec<(String, String)>,
}
