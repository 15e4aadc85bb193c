//! Bar charts as SVG, with colours for light and dark pages.

use std::fmt::Write;

use super::stats::rounded;
use super::table::number;

const WIDTH: usize = 860;
const MARGIN: usize = 24;
const TITLE_HEIGHT: usize = 56;
const PANEL_GAP: usize = 32;
const PANEL_TITLE_HEIGHT: usize = 28;
const BAR_HEIGHT: usize = 18;
const BAR_STEP: usize = 26;
/// For the names to the left of the bars.
const NAME_WIDTH: usize = 112;
/// For the numbers to the right of the longest bar.
const VALUE_WIDTH: usize = 84;
/// A bar that is longer than our own by more than this factor is cut.
const MOST_TIMES_OWN: f64 = 10.0;
const GAP_FROM_END: usize = 10;
const LEGEND_HEIGHT: usize = 30;

const STYLE: &str = "
  .page { fill: #ffffff; }
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .heading { font-weight: 600; }
  .note { fill: #59636e; }
  .bar { fill: #a3b1c2; }
  .own { fill: #1a7f5a; }
  .axis { stroke: #8b949e; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    text { fill: #e6edf3; }
    .note { fill: #9198a1; }
    .bar { fill: #56616f; }
    .own { fill: #3fb27f; }
  }
";

/// One bar, or a word that says why there is none.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: Result<f64, String>,
    /// Drawn in the colour of what the chart is about.
    pub(crate) own: bool,
}

/// Bars to be compared with each other.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// Panels two by two under a title.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) note: String,
    pub(crate) panels: Vec<Panel>,
}

impl Chart {
    /// The chart as an SVG document.
    pub(crate) fn svg(&self) -> String {
        let bars = self.panels.iter().map(|panel| panel.bars.len()).max();
        let panel_height = PANEL_TITLE_HEIGHT + bars.unwrap_or(0) * BAR_STEP;
        let rows = self.panels.len().div_ceil(2);
        let height =
            TITLE_HEIGHT + MARGIN + rows * (panel_height + PANEL_GAP) + LEGEND_HEIGHT - PANEL_GAP;
        let panel_width = (WIDTH - 2 * MARGIN - PANEL_GAP) / 2;
        let mut body = String::new();
        text(
            &mut body,
            (MARGIN, MARGIN + 14),
            "title",
            "start",
            &self.title,
        );
        text(
            &mut body,
            (MARGIN, height - MARGIN / 2),
            "note",
            "start",
            &self.note,
        );
        for (at, panel) in self.panels.iter().enumerate() {
            let x = MARGIN + at % 2 * (panel_width + PANEL_GAP);
            let y = TITLE_HEIGHT + MARGIN / 2 + at / 2 * (panel_height + PANEL_GAP);
            panel.draw(&mut body, (x, y), panel_width);
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}</svg>\n",
            escaped(&self.title)
        )
    }
}

impl Panel {
    /// The value of the longest bar that is drawn whole: one that would make all others invisible is cut.
    fn longest(&self) -> f64 {
        let all = || self.bars.iter();
        let own = all().find(|bar| bar.own);
        let own = own.and_then(|bar| bar.value.as_ref().ok());
        let most = own.map_or(f64::MAX, |own| own * MOST_TIMES_OWN);
        let values = all().filter_map(|bar| bar.value.as_ref().ok().copied());
        let drawn = values.filter(|value| *value <= most);
        drawn.fold(f64::MIN_POSITIVE, f64::max)
    }

    fn draw(&self, body: &mut String, (x, y): (usize, usize), width: usize) {
        text(body, (x, y + 12), "heading", "start", &self.title);
        let longest = self.longest();
        let from = x + NAME_WIDTH;
        let room = width - NAME_WIDTH - VALUE_WIDTH;
        for (at, bar) in self.bars.iter().enumerate() {
            let top = y + PANEL_TITLE_HEIGHT + at * BAR_STEP;
            let base = top + BAR_HEIGHT - 4;
            let class = if bar.own { "heading" } else { "" };
            text(body, (from - 8, base), class, "end", &bar.name);
            match &bar.value {
                Ok(value) => {
                    let length = (value / longest * room as f64).clamp(1.0, room as f64);
                    let fill = if bar.own { "own" } else { "bar" };
                    // Writing to a string cannot fail.
                    let _ = writeln!(
                        body,
                        "<rect class=\"{fill}\" x=\"{from}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>"
                    );
                    if *value > longest {
                        draw_gap(body, (from + room - 2 * GAP_FROM_END, top));
                    }
                    let end = from + rounded(length) + 6;
                    text(body, (end, base), class, "start", &number(*value));
                }
                Err(trouble) => text(body, (from + 6, base), "note", "start", trouble),
            }
        }
        let (top, bottom) = (
            y + PANEL_TITLE_HEIGHT - 4,
            y + PANEL_TITLE_HEIGHT + self.bars.len() * BAR_STEP - 4,
        );
        let _ = writeln!(
            body,
            "<line class=\"axis\" x1=\"{from}\" y1=\"{top}\" x2=\"{from}\" y2=\"{bottom}\"/>"
        );
    }
}

/// Shows that a bar is longer than what is drawn of it.
fn draw_gap(body: &mut String, (x, top): (usize, usize)) {
    let (right, bottom) = (x + GAP_FROM_END, top + BAR_HEIGHT);
    let _ = writeln!(
        body,
        "<path class=\"page\" d=\"M{x} {bottom} L{right} {top} h5 L{} {bottom} z\"/>",
        x + 5
    );
}

fn text(body: &mut String, (x, y): (usize, usize), class: &str, anchor: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        body,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn escaped(words: &str) -> String {
    let words = words.replace('&', "&amp;");
    words.replace('<', "&lt;").replace('>', "&gt;")
}
