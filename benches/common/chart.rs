//! Bar charts as SVG, in the same look as the charts of `mcp-tcp-proxy bench`.

use mcp_tcp_proxy::bench::look::{COLORS, FONT, TITLE_FONT};
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, FontStyle, IntoFont, RGBColor, TextStyle, WHITE};

use super::stats::rounded;
use super::table::number;

/// All lengths are in pixels.
const WIDTH: u32 = 860;
const MARGIN: i32 = 24;
const TITLE_HEIGHT: i32 = 52;
const PANEL_GAP: i32 = 32;
const PANEL_TITLE_HEIGHT: i32 = 26;
const BAR_HEIGHT: i32 = 18;
const BAR_STEP: i32 = 26;
/// For the names to the left of the bars.
const NAME_WIDTH: i32 = 116;
/// For the numbers to the right of the longest bar.
const VALUE_WIDTH: i32 = 76;
const NOTE_HEIGHT: i32 = 34;
/// Between a bar and a text.
const SPACE: i32 = 7;

/// A bar that is longer than our own by more than this factor is cut.
const MOST_TIMES_OWN: f64 = 10.0;
/// Where, before its end, and how wide.
const GAP_FROM_END: i32 = 24;
const GAP_WIDTH: i32 = 6;

const OTHER: RGBColor = RGBColor(163, 177, 194);
const NOTE: RGBColor = RGBColor(89, 99, 110);

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

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Chart {
    /// The chart as an SVG document.
    pub(crate) fn svg(&self) -> String {
        let rows = self.panels.chunks(2).map(row_height);
        let height = TITLE_HEIGHT + rows.sum::<i32>() + NOTE_HEIGHT;
        let mut svg = String::new();
        {
            let page = SVGBackend::with_string(&mut svg, (WIDTH, height.unsigned_abs()));
            let page = page.into_drawing_area();
            self.draw(&page, height).expect("a text has room for all");
        }
        svg
    }

    fn draw(&self, page: &Area, height: i32) -> Drawn {
        page.fill(&WHITE)?;
        let title = TITLE_FONT.into_font().style(FontStyle::Bold);
        let at_left = Pos::new(HPos::Left, VPos::Center);
        let title = title.color(&BLACK).pos(at_left);
        page.draw(&Text::new(
            self.title.as_str(),
            (MARGIN, TITLE_HEIGHT / 2),
            title,
        ))?;
        let note = (MARGIN, height - NOTE_HEIGHT / 2);
        page.draw(&Text::new(
            self.note.as_str(),
            note,
            text(HPos::Left, false, NOTE),
        ))?;
        let width = (WIDTH.cast_signed() - 2 * MARGIN - PANEL_GAP) / 2;
        let mut y = TITLE_HEIGHT;
        for row in self.panels.chunks(2) {
            for (panel, x) in row.iter().zip([MARGIN, MARGIN + width + PANEL_GAP]) {
                panel.draw(page, (x, y), width)?;
            }
            y += row_height(row);
        }
        page.present()
    }
}

fn row_height(row: &[Panel]) -> i32 {
    let bars = row.iter().map(|panel| panel.bars.len()).max();
    let bars = i32::try_from(bars.unwrap_or(0)).unwrap_or(i32::MAX);
    PANEL_TITLE_HEIGHT + bars * BAR_STEP + PANEL_GAP
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

    fn draw(&self, page: &Area, (x, y): (i32, i32), width: i32) -> Drawn {
        let title = (x, y + PANEL_TITLE_HEIGHT / 2);
        page.draw(&Text::new(
            self.title.as_str(),
            title,
            text(HPos::Left, true, BLACK),
        ))?;
        let longest = self.longest();
        let from = x + NAME_WIDTH;
        let room = width - NAME_WIDTH - VALUE_WIDTH;
        let mut top = y + PANEL_TITLE_HEIGHT;
        let axis = top - (BAR_STEP - BAR_HEIGHT) / 2;
        for bar in &self.bars {
            bar.draw(page, (from, top), longest, room)?;
            top += BAR_STEP;
        }
        let axis = vec![(from, axis), (from, top - (BAR_STEP - BAR_HEIGHT) / 2)];
        page.draw(&PathElement::new(axis, NOTE))
    }
}

impl Bar {
    fn draw(&self, page: &Area, (from, top): (i32, i32), longest: f64, room: i32) -> Drawn {
        let middle = top + BAR_HEIGHT / 2;
        let name = text(HPos::Right, self.own, BLACK);
        page.draw(&Text::new(self.name.as_str(), (from - SPACE, middle), name))?;
        let value = match &self.value {
            Ok(value) => *value,
            Err(trouble) => {
                let style = text(HPos::Left, false, NOTE);
                return page.draw(&Text::new(trouble.as_str(), (from + SPACE, middle), style));
            }
        };
        let length = rounded((value / longest).min(1.0) * f64::from(room));
        let end = from + i32::try_from(length).unwrap_or(room).max(1);
        let color = if self.own { COLORS[0] } else { OTHER };
        let bottom = top + BAR_HEIGHT;
        page.draw(&Rectangle::new(
            [(from, top), (end, bottom)],
            color.filled(),
        ))?;
        if value > longest {
            page.draw(&gap(end - GAP_FROM_END, (top, bottom)))?;
        }
        let style = text(HPos::Left, self.own, BLACK);
        page.draw(&Text::new(number(value), (end + SPACE, middle), style))
    }
}

/// Shows that a bar is longer than what is drawn of it.
fn gap(x: i32, (top, bottom): (i32, i32)) -> Polygon<(i32, i32)> {
    let right = x + BAR_HEIGHT / 2;
    let corners = [
        (x, bottom),
        (right, top),
        (right + GAP_WIDTH, top),
        (x + GAP_WIDTH, bottom),
    ];
    Polygon::new(corners, WHITE.filled())
}

fn text(side: HPos, is_bold: bool, color: RGBColor) -> TextStyle<'static> {
    let style = if is_bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let font = FONT.into_font().style(style);
    font.color(&color).pos(Pos::new(side, VPos::Center))
}
