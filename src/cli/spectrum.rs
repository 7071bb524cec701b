//! A spectral scan as a person sees it: a waterfall on the screen, a picture, a drawing. Pure.
//!
//! Time runs down, frequency to the right. A colour is a level that a tenth of the measurements exceeded.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::radio::sx1302::tools::Level;

/// Once over the band.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sweep {
    /// When it began.
    pub time: Timestamp,
    /// By frequency.
    pub levels: Vec<Level>,
}

/// Levels between which colours and blocks change, dBm.
const QUIET: i16 = -116;
const LOUD: i16 = -60;

/// From dark blue over green and yellow to red: lightness rises all the way, so it can be read in grey as well.
const COLOURS: [[u8; 3]; 8] = [
    [24, 18, 60],
    [40, 58, 120],
    [32, 104, 142],
    [30, 148, 140],
    [78, 186, 106],
    [168, 214, 62],
    [250, 190, 50],
    [255, 104, 64],
];
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// 0 to 7.
fn step(dbm: i16) -> usize {
    let span = i32::from(LOUD - QUIET);
    let above = i32::from(dbm.clamp(QUIET, LOUD) - QUIET);
    // 8 steps of equal width, the last one closed
    ((above * 8 / span).min(7)) as usize
}

fn mhz(hz: u32) -> String {
    format!("{}.{}", hz / 1_000_000, hz / 100_000 % 10)
}

/// The line above the waterfall.
pub(super) fn head(frequencies: &[u32]) -> String {
    let (Some(first), Some(last)) = (frequencies.first(), frequencies.last()) else { return String::new() };
    let (first, last) = (mhz(*first), format!("{} MHz", mhz(*last)));
    let width = frequencies.len().max(first.len() + last.len() + 1);
    format!("          {first}{last:>rest$}\n", rest = width - first.len())
}

/// One sweep on the screen.
pub(super) fn line(sweep: &Sweep, colours: bool) -> String {
    let mut text = sweep.time.strftime("%T  ").to_string();
    for level in &sweep.levels {
        let step = step(level.dbm);
        if colours {
            let [r, g, b] = COLOURS[step];
            let _ = write!(text, "\x1b[48;2;{r};{g};{b}m \x1b[0m");
        } else {
            text.push(BLOCKS[step]);
        }
    }
    if let Some(loudest) = sweep.levels.iter().max_by_key(|level| level.dbm) {
        let _ = write!(text, "  {} dBm at {} MHz", loudest.dbm, mhz(loudest.frequency));
    }
    text + "\n"
}

/// What the colours mean.
pub(super) fn legend(colours: bool) -> String {
    let sample = |step: usize| {
        let [r, g, b] = COLOURS[step];
        if colours { format!("\x1b[48;2;{r};{g};{b}m  \x1b[0m") } else { BLOCKS[step].to_string() }
    };
    let all: String = (0..8).map(sample).collect();
    format!("          {QUIET} dBm or less {all} {LOUD} dBm or more, exceeded in a tenth of the time\n")
}

/// Pixels of a cell.
const WIDE: usize = 12;
const HIGH: usize = 12;

/// The waterfall alone, a cell for each measurement.
pub(super) fn png(frequencies: &[u32], sweeps: &[Sweep]) -> Vec<u8> {
    let (width, height) = (frequencies.len() * WIDE, sweeps.len() * HIGH);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for sweep in sweeps {
        let row: Vec<u8> =
            sweep.levels.iter().flat_map(|level| COLOURS[step(level.dbm)].repeat(WIDE)).collect();
        for _ in 0..HIGH {
            pixels.extend(&row);
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    // the only errors are of sizes and of a writer; memory has none, and an empty picture is an empty file
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
    if written.is_err() { Vec::new() } else { bytes }
}

/// The waterfall with axes and legend, without any external resource.
pub(super) fn svg(frequencies: &[u32], sweeps: &[Sweep]) -> String {
    let (left, top, below) = (70, 40, 70);
    let (wide, high) = (frequencies.len() * WIDE, sweeps.len() * HIGH);
    let (width, height) = (left + wide.max(320) + 20, top + high + below);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let colour = |step: usize| {
        let [r, g, b] = COLOURS[step];
        format!("#{r:02x}{g:02x}{b:02x}")
    };
    for (row, sweep) in sweeps.iter().enumerate() {
        for (column, level) in sweep.levels.iter().enumerate() {
            let (x, y, fill) = (left + column * WIDE, top + row * HIGH, colour(step(level.dbm)));
            let _ = writeln!(
                text,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDE}\" height=\"{HIGH}\" fill=\"{fill}\"><title>{} MHz, {} dBm</title></rect>",
                mhz(level.frequency),
                level.dbm
            );
        }
        if row % 4 == 0 {
            let y = top + row * HIGH + HIGH - 2;
            let _ = writeln!(
                text,
                "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
                left - 6,
                sweep.time.strftime("%T")
            );
        }
    }
    // a label every 60 pixels or more
    for (column, frequency) in frequencies.iter().enumerate().filter(|(column, _)| column % 5 == 0) {
        let x = left + column * WIDE + WIDE / 2;
        let _ = writeln!(
            text,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            top - 8,
            mhz(*frequency)
        );
    }
    let _ = writeln!(text, "<text x=\"{left}\" y=\"14\">MHz</text>");
    for (number, step) in (0..8).enumerate() {
        let (x, y) = (left + number * 24, top + high + 16);
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"24\" height=\"12\" fill=\"{}\"/>",
            colour(step)
        );
    }
    let y = top + high + 44;
    let _ = writeln!(
        text,
        "<text x=\"{left}\" y=\"{y}\">{QUIET} dBm or less … {LOUD} dBm or more, exceeded in a tenth of the time</text>\n</svg>"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweeps() -> (Vec<u32>, Vec<Sweep>) {
        let frequencies: Vec<u32> = (0..10).map(|n| 867_100_000 + n * 200_000).collect();
        let sweep = |loud: usize| {
            let level = |(n, frequency): (usize, &u32)| Level {
                frequency: *frequency,
                dbm: if n == loud { -64 } else { -112 },
            };
            let levels = frequencies.iter().enumerate().map(level).collect();
            Sweep { time: "2026-11-27T12:00:00Z".parse().unwrap(), levels }
        };
        let all = (0..4).map(sweep).collect();
        (frequencies, all)
    }

    #[test]
    fn levels_have_steps() {
        assert_eq!([-130, -116, -110, -109, -61, -60, 0].map(step), [0, 0, 0, 1, 7, 7, 7]);
    }

    #[test]
    fn the_screen_shows_where_it_is_loud() {
        let (frequencies, sweeps) = sweeps();
        assert_eq!(head(&frequencies), "          867.1 868.9 MHz\n");
        assert_eq!(line(&sweeps[2], false), "12:00:00  ▁▁█▁▁▁▁▁▁▁  -64 dBm at 867.5 MHz\n");
        assert!(line(&sweeps[0], true).starts_with("12:00:00  \x1b[48;2;255;104;64m "));
        assert_eq!(head(&[]), "");
    }

    #[test]
    fn pictures_are_what_was_measured() {
        let (frequencies, sweeps) = sweeps();
        let bytes = png(&frequencies, &sweeps);
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (120, 48));
        let pixel = |x: usize, y: usize| pixels[(y * 120 + x) * 3..][..3].to_vec();
        assert_eq!(pixel(30, 30), COLOURS[7]);
        assert_eq!(pixel(0, 30), COLOURS[0]);
        assert!(png(&[], &[]).is_empty());
        let text = svg(&frequencies, &sweeps);
        assert_eq!(text.matches("<title>").count(), 40);
        assert!(text.contains("<title>867.5 MHz, -64 dBm</title>") && text.ends_with("</svg>\n"));
    }
}
