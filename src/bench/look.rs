//! What all charts have in common: fonts that every viewer has, and colours.

use plotters::prelude::RGBColor;

/// Of all text but titles.
pub const FONT: (&str, u32) = ("system-ui, sans-serif", 13);
pub const TITLE_FONT: (&str, u32) = ("system-ui, sans-serif", 17);

/// Of what a chart is about, and of what it is compared with.
pub const COLORS: [RGBColor; 2] = [RGBColor(26, 127, 90), RGBColor(196, 88, 32)];

pub const GRID: RGBColor = RGBColor(225, 228, 232);
