//! The images of the concentrator's processors.
//!
//! They are the vendor's, and none is in this crate: they come as files, in the text form in which they are published or
//! as raw bytes. Owns their checks and their two forms. [`Firmware::synthetic`] obeys the same rules and does nothing;
//! it is for the [`crate::model`] and for tests.

use std::fmt;

/// Size of the program memory of each processor.
pub const IMAGE_BYTES: usize = 8192;
/// Words of the patch of the SX1261.
pub const PATCH_WORDS: usize = 386;

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Image {
    /// Gain control, for SX1250 radios.
    AgcSx1250,
    /// Gain control, for SX1255 and SX1257 radios.
    AgcSx125x,
    /// Calibration of SX1255 and SX1257 radios.
    Calibration,
    /// The arbiter that gives demodulators to channels.
    Arbiter,
}

impl Image {
    /// All four.
    pub const ALL: [Image; 4] = [Image::AgcSx1250, Image::AgcSx125x, Image::Calibration, Image::Arbiter];

    /// The version that this driver speaks with.
    pub const fn version(self) -> u8 {
        match self {
            Image::AgcSx1250 => 10,
            Image::AgcSx125x => 6,
            Image::Calibration => 1,
            Image::Arbiter => 2,
        }
    }

    /// The seed of the synthetic image.
    const fn seed(self) -> u32 {
        match self {
            Image::AgcSx1250 => 0x0301,
            Image::AgcSx125x => 0x0502,
            Image::Arbiter => 0x0903,
            Image::Calibration => 0x0d04,
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Image::AgcSx1250 => "AGC firmware for SX1250",
            Image::AgcSx125x => "AGC firmware for SX1255/SX1257",
            Image::Calibration => "calibration firmware for SX1255/SX1257",
            Image::Arbiter => "arbiter firmware",
        })
    }
}

/// Why bytes are no firmware.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// The configuration needs an image that is not there.
    #[error("the {0} is missing: import it first")]
    Missing(Image),
    /// The configuration needs the patch of the SX1261.
    #[error("the patch of the SX1261 is missing: import it first")]
    NoPatch,
    /// An image fills the program memory, and the patch has its size.
    #[error(
        "{0} bytes are no firmware image: {IMAGE_BYTES} are wanted (or {PATCH_WORDS} words for the SX1261)"
    )]
    Length(usize),
    /// The two highest bits of a word count the ones of the others.
    #[error("the parity of word {0} is wrong: the file is damaged, or no firmware")]
    Parity(usize),
    /// The text holds something else than numbers.
    #[error("not a list of numbers: {0:?}")]
    Text(String),
}

/// Length and parity of a processor's image are right.
#[derive(Clone, PartialEq, Eq)]
pub struct Program(Vec<u8>);

impl Program {
    /// Checks raw bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Program, FirmwareError> {
        if bytes.len() != IMAGE_BYTES {
            return Err(FirmwareError::Length(bytes.len()));
        }
        match bytes.chunks_exact(2).position(|pair| !is_word(u16::from_le_bytes([pair[0], pair[1]]))) {
            Some(slot) => Err(FirmwareError::Parity(slot)),
            None => Ok(Program(bytes)),
        }
    }

    /// Takes a file as it is published (comma-separated literals, as in a C array) or as raw bytes.
    pub fn of_file(file: &[u8]) -> Result<Program, FirmwareError> {
        if file.len() == IMAGE_BYTES {
            return Program::new(file.to_vec());
        }
        let bytes: Option<Vec<u8>> =
            numbers(file)?.into_iter().map(|number| u8::try_from(number).ok()).collect();
        Program::new(bytes.ok_or_else(|| FirmwareError::Text("a number above 255".into()))?)
    }

    /// The bytes, as they go into the program memory.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Obeys the parity rule, and is no program.
    pub fn synthetic(image: Image) -> Program {
        let slots = (0..IMAGE_BYTES as u32 / 2).map(|i| {
            let word = (i.wrapping_mul(0x0b35).wrapping_add(image.seed()) & 0x3fff) as u16;
            word | ((word.count_ones() as u16) & 3) << 14
        });
        Program(slots.flat_map(u16::to_le_bytes).collect())
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} bytes)", self.0.len())
    }
}

/// The patch of the SX1261: words that are written to its memory one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch(Vec<u32>);

impl Patch {
    /// Checks the number of words.
    pub fn new(words: Vec<u32>) -> Result<Patch, FirmwareError> {
        if words.len() == PATCH_WORDS {
            Ok(Patch(words))
        } else {
            Err(FirmwareError::Length(words.len() * 4))
        }
    }

    /// Takes a file as it is published (comma-separated literals) or as raw bytes, most significant first.
    pub fn of_file(file: &[u8]) -> Result<Patch, FirmwareError> {
        if file.len() == PATCH_WORDS * 4 {
            let words =
                file.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
            return Patch::new(words.collect());
        }
        Patch::new(numbers(file)?)
    }

    /// The words.
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    /// Has the right size, and does nothing.
    pub fn synthetic() -> Patch {
        let word = |i: u32| i.wrapping_mul(0x0101_0101).wrapping_add(0x00a5_005a);
        Patch((0..PATCH_WORDS as u32).map(word).collect())
    }
}

/// What was imported. A configuration needs two or three of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firmware {
    /// For SX1250 radios.
    pub agc_sx1250: Option<Program>,
    /// For SX1255 and SX1257 radios.
    pub agc_sx125x: Option<Program>,
    /// For SX1255 and SX1257 radios.
    pub calibration: Option<Program>,
    /// Always needed.
    pub arbiter: Option<Program>,
    /// For listen-before-talk and spectral scan.
    pub patch: Option<Patch>,
}

impl Firmware {
    /// All images, obeying the rules of real ones, for the model.
    pub fn synthetic() -> Firmware {
        Firmware {
            agc_sx1250: Some(Program::synthetic(Image::AgcSx1250)),
            agc_sx125x: Some(Program::synthetic(Image::AgcSx125x)),
            calibration: Some(Program::synthetic(Image::Calibration)),
            arbiter: Some(Program::synthetic(Image::Arbiter)),
            patch: Some(Patch::synthetic()),
        }
    }

    /// The image, or an error that says what to do.
    pub fn program(&self, image: Image) -> Result<&Program, FirmwareError> {
        let program = match image {
            Image::AgcSx1250 => &self.agc_sx1250,
            Image::AgcSx125x => &self.agc_sx125x,
            Image::Calibration => &self.calibration,
            Image::Arbiter => &self.arbiter,
        };
        program.as_ref().ok_or(FirmwareError::Missing(image))
    }
}

/// Whether the two highest bits are the number of ones of the others, modulo 4.
pub fn is_word(word: u16) -> bool {
    u32::from(word >> 14) == (word & 0x3fff).count_ones() % 4
}

/// Numbers of a list of literals: decimal or hexadecimal, between commas, with C's comments and whatever stands before
/// the brace of an array.
fn numbers(file: &[u8]) -> Result<Vec<u32>, FirmwareError> {
    let length = || FirmwareError::Length(file.len());
    let text = std::str::from_utf8(file).map_err(|_| length())?;
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        plain.push_str(&rest[..start]);
        plain.push(' ');
        rest = rest[start..].find("*/").map_or("", |end| &rest[start + end + 2..]);
    }
    plain.push_str(rest);
    let plain: Vec<&str> = plain.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let plain = plain.join("\n");
    let inner = match plain.split_once('{') {
        Some((_, inner)) => inner.split_once('}').map_or(inner, |(inner, _)| inner),
        None => &plain,
    };
    let literals = inner.split(',').map(str::trim).filter(|literal| !literal.is_empty());
    literals
        .map(|literal| {
            let (digits, radix) = match literal.strip_prefix("0x").or_else(|| literal.strip_prefix("0X")) {
                Some(digits) => (digits, 16),
                None => (literal, 10),
            };
            let digits = digits.trim_end_matches(['u', 'U', 'l', 'L']);
            u32::from_str_radix(digits, radix)
                .map_err(|_| FirmwareError::Text(literal.chars().take(20).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn synthetic_images_obey_the_rule_of_real_ones() {
        for image in Image::ALL {
            let program = Program::synthetic(image);
            assert_eq!(Program::new(program.bytes().to_vec()), Ok(program));
        }
        assert_eq!(&Program::synthetic(Image::AgcSx1250).bytes()[..4], [0x01, 0xc3, 0x36, 0xce]);
    }

    #[test]
    fn published_text_and_raw_bytes_are_the_same_image() {
        let program = Program::synthetic(Image::Arbiter);
        let literals: Vec<String> = program.bytes().iter().map(|byte| format!("0x{byte:02X}")).collect();
        let text = format!("/* a, b */\nstatic uint8_t x[8192] = {{ // 1, 2\n{}\n}};\n", literals.join(", "));
        assert_eq!(Program::of_file(text.as_bytes()).as_ref(), Ok(&program));
        assert_eq!(Program::of_file(literals.join(",").as_bytes()).as_ref(), Ok(&program));
        assert_eq!(Program::of_file(program.bytes()), Ok(program));
        let patch = Patch::synthetic();
        let words: Vec<String> = patch.words().iter().map(u32::to_string).collect();
        assert_eq!(Patch::of_file(words.join(",\n").as_bytes()).as_ref(), Ok(&patch));
    }

    #[test]
    fn a_damaged_image_names_the_word() {
        let mut bytes = Program::synthetic(Image::AgcSx125x).bytes().to_vec();
        bytes[200] ^= 1;
        assert_eq!(Program::new(bytes), Err(FirmwareError::Parity(100)));
        assert_eq!(Program::of_file(b"1, 2, 3"), Err(FirmwareError::Length(3)));
        assert_eq!(Program::of_file(b"1, x, 3"), Err(FirmwareError::Text("x".into())));
    }

    proptest! {
        #[test]
        fn foreign_files_are_no_trouble(file in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Program::of_file(&file).is_err());
        }
        #[test]
        fn foreign_texts_are_no_trouble(text in "[0-9a-fx,{}/*\n ]{0,80}") {
            prop_assert!(Program::of_file(text.as_bytes()).is_err());
        }
    }
}
