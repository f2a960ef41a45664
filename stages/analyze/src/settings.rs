//! The settings of `analyze`.

use pipe_contract::Reader;

/// What a length counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthUnit {
    /// Unicode scalar values.
    Characters,
    /// Ids of the model's tokenizer.
    Tokens,
}

impl LengthUnit {
    /// The word of the setting.
    pub fn name(self) -> &'static str {
        match self {
            LengthUnit::Characters => "characters",
            LengthUnit::Tokens => "tokens",
        }
    }
}

/// `with:` of an `analyze` stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Texts longer than this are counted; 1 to 1,048,576, in `unit`.
    pub threshold: u32,
    /// What the histogram and the threshold count.
    pub unit: LengthUnit,
    /// Most bars of the histogram; 1 to 1,000.
    pub bins: usize,
    /// Most tokens of a pack, for what packing would waste; 1 to 1,048,576.
    pub max_length: u32,
    /// Title of the picture; `None`: it says what is counted.
    pub title: Option<String>,
}

impl Settings {
    /// Reads `with:`.
    pub fn read(reader: &mut Reader) -> Self {
        Settings {
            threshold: reader.integer("threshold", 1024, 1..=1_048_576) as u32,
            unit: match reader.choice("unit", "characters", &["characters", "tokens"]) {
                "tokens" => LengthUnit::Tokens,
                _ => LengthUnit::Characters,
            },
            bins: reader.integer("bins", 50, 1..=1000) as usize,
            max_length: reader.integer("max_length", 1024, 1..=1_048_576) as u32,
            title: reader.optional_text("title"),
        }
    }
}
