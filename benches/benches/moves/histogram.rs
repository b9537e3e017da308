//! Histogram of durations as an SVG image.

use std::{fmt::Write, time::Duration};

/// Width of a bar, in milliseconds.
const STEP_MS: u64 = 5;
/// Size of the area of the bars, and the margin around it.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 240;
const MARGIN: u64 = 48;

/// Returns the histogram of pauses, with a line at half the round trip: less is not possible.
pub(crate) fn svg(pauses: &[Duration], round_trip: Duration) -> String {
    let steps: Vec<u64> = pauses.iter().map(|pause| pause.as_millis() as u64 / STEP_MS).collect();
    let last = steps.iter().max().copied().unwrap_or_default() + 1;
    let counts: Vec<u64> = (0..last)
        .map(|step| steps.iter().filter(|of| **of == step).count() as u64)
        .collect();
    let most = counts.iter().max().copied().unwrap_or(1).max(1);
    let x = |step: f64| MARGIN as f64 + step * WIDTH as f64 / last as f64;
    let bottom = MARGIN + HEIGHT;
    let mut image = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
        WIDTH + 2 * MARGIN,
        HEIGHT + 2 * MARGIN
    );
    for (step, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (HEIGHT * count).div_ceil(most);
        let _ = writeln!(
            image,
            "<rect x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{height}\" fill=\"steelblue\"/>",
            x(step as f64),
            bottom - height,
            (WIDTH as f64 / last as f64 - 1.0).max(0.5)
        );
    }
    let half = round_trip.as_millis() as f64 / 2.0;
    let _ = writeln!(
        image,
        "<line x1=\"{0:.1}\" y1=\"{MARGIN}\" x2=\"{0:.1}\" y2=\"{bottom}\" stroke=\"firebrick\"/>\n\
         <text x=\"{0:.1}\" y=\"{1}\" fill=\"firebrick\">half the round trip</text>",
        x(half / STEP_MS as f64),
        MARGIN - 6
    );
    for step in (0..=last).step_by((last as usize).div_ceil(10)) {
        let _ = writeln!(
            image,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(step as f64),
            bottom + 16,
            step * STEP_MS
        );
    }
    let _ = writeln!(
        image,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">pause of writes at the groups, ms; {} moves, the highest bar is \
         {most}</text>\n</svg>",
        MARGIN + WIDTH / 2,
        bottom + 36,
        pauses.len()
    );
    image
}
