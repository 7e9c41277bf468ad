//! Line charts as SVG, panels above each other over one horizontal axis. Pure. Readable on light and dark backgrounds, and
//! without colours: lines differ in their dashes too.

use std::fmt::Write as _;

/// A line.
pub(crate) struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines over one vertical axis.
pub(crate) struct Panel {
    /// What the axis shows, with its unit.
    pub label: String,
    pub series: Vec<Series>,
    /// Where the axis ends; at the largest value if left out, and then it begins at 0.
    pub most: Option<f64>,
}

pub(crate) struct Chart {
    pub title: String,
    pub x_label: String,
    pub panels: Vec<Panel>,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 48.0;
const PANEL: f64 = 220.0;
const GAP: f64 = 56.0;
const BOTTOM: f64 = 60.0;

/// Okabe and Ito's colours, which people who see fewer colours tell apart, darker or lighter with the background.
const STYLE: &str = "\
svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#222}.title{font-size:15px;font-weight:600}\
.grid{stroke:#ddd}.axis{stroke:#666}.line{fill:none;stroke-width:2}\
.s0{stroke:#0072b2}.s1{stroke:#c04a00}.s2{stroke:#007a58}.s3{stroke:#a0467a}\
.s1{stroke-dasharray:7 3}.s2{stroke-dasharray:2 3}.s3{stroke-dasharray:9 3 2 3}\
@media(prefers-color-scheme:dark){svg{background:#16181c}.paper{fill:#16181c}text{fill:#e6e6e6}.grid{stroke:#383c44}\
.axis{stroke:#9aa0aa}.s0{stroke:#56b4e9}.s1{stroke:#f0803c}.s2{stroke:#2fd0a2}.s3{stroke:#e28fc0}}";

/// Number of line styles.
const STYLES: usize = 4;

impl Chart {
    pub fn svg(&self) -> String {
        let height = TOP + self.panels.len() as f64 * (PANEL + GAP) - GAP + BOTTOM;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"26\">{title}</text>\n",
            title = escaped(&self.title)
        );
        let points = || self.panels.iter().flat_map(|panel| &panel.series).flat_map(|series| &series.points);
        let across = Scale::around(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        for (number, panel) in self.panels.iter().enumerate() {
            let top = TOP + number as f64 * (PANEL + GAP);
            panel.draw(&mut svg, top, &across);
        }
        let below = height - BOTTOM + 44.0;
        text(&mut svg, f64::midpoint(LEFT, WIDTH - RIGHT), below, "middle", &self.x_label);
        svg.push_str("</svg>\n");
        svg
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, top: f64, across: &Scale) {
        let bottom = top + PANEL;
        let values = || self.series.iter().flat_map(|series| &series.points).map(|point| point.1);
        let up = match self.most {
            Some(most) => Scale::around(values().chain([most]), bottom, top).until(most),
            None => Scale::around(values().chain([0.0]), bottom, top),
        };
        let right = WIDTH - RIGHT;
        for tick in up.ticks() {
            let y = up.place(tick);
            line(svg, "grid", (LEFT, y), (right, y));
            text(svg, LEFT - 8.0, y + 4.0, "end", &up.label(tick));
        }
        for tick in across.ticks().filter(|&tick| across.holds(tick)) {
            let x = across.place(tick);
            line(svg, "axis", (x, bottom), (x, bottom + 5.0));
            text(svg, x, bottom + 20.0, "middle", &across.label(tick));
        }
        line(svg, "axis", (LEFT, bottom), (right, bottom));
        line(svg, "axis", (LEFT, top), (LEFT, bottom));
        let middle = f64::midpoint(top, bottom);
        writeln!(
            svg,
            "<text transform=\"translate(22 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(&self.label)
        )
        .expect("writing to a string does not fail");
        for (number, series) in self.series.iter().enumerate() {
            let style = number % STYLES;
            let points: Vec<String> =
                series.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", across.place(x), up.place(y))).collect();
            writeln!(svg, "<polyline class=\"line s{style}\" points=\"{}\"/>", points.join(" "))
                .expect("writing to a string does not fail");
            let y = top + 12.0 + 22.0 * number as f64;
            writeln!(svg, "<path class=\"line s{style}\" d=\"M{} {y}h34\"/>", right + 16.0)
                .expect("writing to a string does not fail");
            text(svg, right + 58.0, y + 4.0, "start", &series.name);
        }
    }
}

/// Where values lie between two places, in steps that people count in.
struct Scale {
    least: f64,
    most: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Steps around all values.
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
        let rough = ((most - least) / 5.0).max(least.abs().max(most.abs()).max(1.0) * 1e-6);
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&step| step >= rough * 0.999);
        let step = step.unwrap_or(rough);
        let (least, most) = ((least / step + 1e-9).floor() * step, (most / step - 1e-9).ceil() * step);
        Self { least, most: if most > least { most } else { least + step }, step, from, to }
    }

    /// Ends at a value.
    const fn until(mut self, most: f64) -> Self {
        self.most = most;
        self
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value - self.least) / (self.most - self.least) * (self.to - self.from)
    }

    fn holds(&self, value: f64) -> bool {
        (self.least - 1e-9..=self.most + 1e-9).contains(&value)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = ((self.most - self.least) / self.step + 1e-6).floor() as u32;
        (0..=count).map(|number| self.least + f64::from(number) * self.step)
    }

    fn label(&self, tick: f64) -> String {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{tick:.decimals$}")
    }
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(svg, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
        .expect("writing to a string does not fail");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text))
        .expect("writing to a string does not fail");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(values: &[f64]) -> Vec<String> {
        let scale = Scale::around(values.iter().copied(), 0.0, 1.0);
        scale.ticks().map(|tick| scale.label(tick)).collect()
    }

    #[test]
    fn axes_have_round_steps_around_all_values() {
        assert_eq!(scale(&[0.61, 0.98]), ["0.6", "0.7", "0.8", "0.9", "1.0"]);
        assert_eq!(scale(&[0.0, 650.0]), ["0", "200", "400", "600", "800"]);
        assert_eq!(scale(&[4.0, 49.0]), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(scale(&[0.0]).first().map(String::as_str), Some("0.000000"));
        assert_eq!(scale(&[]).len(), 6, "an empty chart has axes too");
    }

    #[test]
    fn a_chart_has_its_lines_titles_and_legend() {
        let series = |name: &str, values: [f64; 3]| Series {
            name: name.to_owned(),
            points: [1.0, 2.0, 3.0].into_iter().zip(values).collect(),
        };
        let chart = Chart {
            title: "a < b & c".to_owned(),
            x_label: "windows".to_owned(),
            panels: vec![
                Panel {
                    label: "ratio".to_owned(),
                    series: vec![series("off", [0.5, 0.5, 0.6]), series("swift", [0.9, 1.0, 0.95])],
                    most: Some(1.0),
                },
                Panel { label: "bytes (MB)".to_owned(), series: vec![series("swift", [3.0, 0.0, 1.0])], most: None },
            ],
        };
        insta::assert_snapshot!(chart.svg());
    }
}
