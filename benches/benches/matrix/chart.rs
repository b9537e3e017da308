//! Rates as an SVG image: a bar for each system in each row, on a logarithmic scale.

use std::fmt::Write;

use crate::{record::Records, report::median, systems::NAMES, work};

const LEFT: f64 = 190.0;
const WIDTH: f64 = 640.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;
const TOP: f64 = 40.0;
/// Rates at the ends of the scale.
const LEAST: f64 = 100.0;
const MOST: f64 = 200_000.0;
/// Colours of the systems, in the order of their names.
const COLOURS: [&str; 8] = [
    "#1f4e8c", "#7aa6d8", "#c44e52", "#dd8452", "#e8b96a", "#55a868", "#8172b3", "#999999",
];

/// Returns the image.
pub(crate) fn svg(records: &Records) -> String {
    let mut bars = String::new();
    let mut y = TOP;
    for row in work::rows() {
        let name = row.name();
        let start = y;
        for (system, colour) in NAMES.iter().zip(COLOURS) {
            let Some(rate) = median(&records.figures(system, &name, |record| record.rate)) else {
                continue;
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                bars,
                "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\" font-size=\"9\">{rate:.0}</text>",
                length(rate),
                BAR - 1.0,
                LEFT + length(rate) + 4.0,
                y + BAR - 3.0
            );
            y += BAR;
        }
        if start < y {
            let middle = f64::midpoint(start, y) + 4.0;
            let _ = writeln!(
                bars,
                "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{name}</text>",
                LEFT - 8.0
            );
            y += GAP;
        }
    }
    let mut names = String::new();
    for (at, (system, colour)) in NAMES.iter().zip(COLOURS).enumerate() {
        let x = 10.0 + at as f64 * 105.0;
        let _ = writeln!(
            names,
            "<rect x=\"{x:.0}\" y=\"10\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"19\">{system}</text>",
            x + 14.0
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0}\" height=\"{1:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{0:.0}\" height=\"{1:.0}\" fill=\"white\"/>\n{names}{bars}\
         <text x=\"{LEFT}\" y=\"{2:.0}\">requests a second, logarithmic</text>\n</svg>\n",
        LEFT + WIDTH + 70.0,
        y + 24.0,
        y + 12.0
    )
}

fn length(rate: f64) -> f64 {
    let share = (rate.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    share * WIDTH
}
