//! The roofline as SVG: a panel a device, its points numbered, and beside it what the numbers are.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::kernels::Point;

/// A device: what it can do at most, and what its kernels do.
pub struct Panel {
    pub title: String,
    /// Of the y axis.
    pub axis: &'static str,
    /// Of operations and bytes.
    pub units: [&'static str; 2],
    /// Thousand million operations and bytes a second.
    pub peak: f64,
    pub bandwidth: f64,
    pub points: Vec<Point>,
}

impl Panel {
    pub fn roof(&self, intensity: f64) -> f64 {
        self.peak.min(self.bandwidth * intensity)
    }
}

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 1140;
const CHART: i32 = 670;
const HEADER: u32 = 44;
const HEIGHT: u32 = 540;
const FOOTER: u32 = 60;
/// Operations a byte.
const INTENSITIES: [f64; 2] = [0.04, 400.0];

const NOTES: [&str; 2] = [
    "Each kernel by the fastest of its tunes. An element moved, cast, compared or chosen counts as one operation, and so does a function of one.",
    "Bytes are each operand and the result, once. The slope is a plain copy's, out of any cache: what stays in one, or moves more at a time, can lie above.",
];

pub fn draw(path: &Path, panels: &[Panel]) -> Drawn {
    let height = HEADER + HEIGHT * panels.len() as u32 + FOOTER;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    text(&root, "gristmill's kernels under the roofline of each device", (WIDTH as i32 / 2, 24), 22, BLACK, HPos::Center)?;
    for (panel, top) in panels.iter().zip((HEADER..).step_by(HEIGHT as usize)) {
        draw_panel(&root, top as i32, panel)?;
    }
    for (note, line) in NOTES.iter().zip(0..) {
        text(&root, note, (20, (height - FOOTER) as i32 + 18 + 22 * line), 14, BLACK, HPos::Left)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(root: &Root, top: i32, panel: &Panel) -> Drawn {
    text(root, &panel.title, (20, top + 14), 17, BLACK, HPos::Left)?;
    let [left, right] = INTENSITIES;
    let least = panel.points.iter().map(|point| point.gflops).fold(panel.roof(left), f64::min);
    let low = 10f64.powf(least.log10().floor());
    let plot = root.clone().shrink((0, top + 28), (CHART, HEIGHT as i32 - 44));
    let mut chart = ChartBuilder::on(&plot)
        .margin_left(12)
        .margin_right(16)
        .x_label_area_size(54)
        .y_label_area_size(76)
        .build_cartesian_2d((left..right).log_scale(), (low..3.0 * panel.peak).log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(RGBColor(205, 205, 205))
        .light_line_style(RGBColor(238, 238, 238))
        .label_style(font(14, BLACK))
        .axis_desc_style(font(15, BLACK))
        .x_desc("arithmetic intensity, FLOP/byte")
        .y_desc(panel.axis)
        .draw()?;
    let ridge = (panel.peak / panel.bandwidth).clamp(left, right);
    chart.draw_series([PathElement::new([left, ridge, right].map(|x| (x, panel.roof(x))), BLACK.stroke_width(2))])?;

    let [flops, bytes] = panel.units;
    // In pixels of the whole picture.
    let at = |x: f64, y: f64| chart.backend_coord(&(x, y));
    let (x, y) = at(right, panel.roof(right));
    text(root, &format!("{:.1} {flops}", panel.peak), (x - 6, y - 12), 14, BLACK, HPos::Right)?;
    let middle = (left * ridge).sqrt();
    let (x, y) = at(middle, panel.roof(middle));
    text(root, &format!("{:.1} {bytes}", panel.bandwidth), (x - 8, y - 12), 14, BLACK, HPos::Right)?;
    let points: Vec<_> = panel.points.iter().map(|point| at(point.intensity, point.gflops)).collect();
    let line = |row: i32| top + 42 + 22 * row;
    text(root, flops, (WIDTH as i32 - 100, line(0)), 14, BLACK, HPos::Right)?;
    text(root, "of the roof", (WIDTH as i32 - 14, line(0)), 14, BLACK, HPos::Right)?;
    for (((point, at), label), number) in panel.points.iter().zip(&points).zip(labels(&points)).zip(1..) {
        let colour = colour(&point.label);
        root.draw(&PathElement::new([*at, label], colour))?;
        root.draw(&Circle::new(*at, 4, colour.filled()))?;
        root.draw(&Circle::new(label, RADIUS, WHITE.filled()))?;
        root.draw(&Circle::new(label, RADIUS, colour))?;
        text(root, &number.to_string(), label, 12, colour, HPos::Center)?;
        let part = 100.0 * point.gflops / panel.roof(point.intensity);
        text(root, &number.to_string(), (CHART + 26, line(number)), 14, colour, HPos::Right)?;
        text(root, &point.label, (CHART + 36, line(number)), 14, colour, HPos::Left)?;
        text(root, &format!("{:.2}", point.gflops), (WIDTH as i32 - 100, line(number)), 14, colour, HPos::Right)?;
        text(root, &format!("{part:.0} %"), (WIDTH as i32 - 14, line(number)), 14, colour, HPos::Right)?;
    }
    Ok(())
}

/// Of the circle around a number.
const RADIUS: i32 = 10;

/// Where the numbers go: as near to their points as there is room.
fn labels(points: &[(i32, i32)]) -> Vec<(i32, i32)> {
    let mut taken: Vec<(i32, i32)> = Vec::new();
    for &(x, y) in points {
        let free = |&(x, y): &(i32, i32)| {
            let near = |&(a, b): &(i32, i32), reach: i32| (x - a).pow(2) + (y - b).pow(2) < reach.pow(2);
            !taken.iter().any(|other| near(other, 2 * RADIUS + 2)) && !points.iter().any(|point| near(point, RADIUS + 6))
        };
        let around = (18..150).step_by(6).flat_map(|reach| {
            (0..16).map(move |turn| {
                let (sin, cos) = (std::f64::consts::TAU * f64::from(turn) / 16.0).sin_cos();
                (x + (f64::from(reach) * cos) as i32, y + (f64::from(reach) * sin) as i32)
            })
        });
        let place = around.into_iter().find(free).unwrap_or((x + 18, y));
        taken.push(place);
    }
    taken
}

/// Dark on white, and different to most who see colours differently.
fn colour(label: &str) -> RGBColor {
    match label {
        label if label.starts_with("matmul") => RGBColor(0, 90, 160),
        label if label.starts_with("attention") => RGBColor(190, 70, 0),
        label if label.starts_with("softmax") || label.starts_with("reduce") => RGBColor(120, 40, 130),
        _ => RGBColor(0, 105, 70),
    }
}

fn font(pixels: u32, colour: RGBColor) -> TextStyle<'static> {
    // The SVG backend divides by as much.
    TextStyle { color: colour.to_backend_color(), ..("sans-serif", 1.24 * f64::from(pixels)).into() }
}

fn text(root: &Root, text: &str, at: (i32, i32), pixels: u32, colour: RGBColor, side: HPos) -> Drawn {
    root.draw(&Text::new(text, at, font(pixels, colour).pos(Pos::new(side, VPos::Center))))?;
    Ok(())
}
