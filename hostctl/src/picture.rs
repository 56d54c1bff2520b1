//! Pictures of a boot: bars for the terminal, and SVG for everything else.

use std::fmt::Write;

use keelson_model::init::BootStep;

/// Columns of the bars in the terminal.
const COLUMNS: usize = 48;
/// Measures of the SVG, in pixels.
const WIDTH: f64 = 1000.0;
const NAMES: f64 = 190.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 48.0;

/// The steps in the order of their beginnings, and the end of the last one.
fn ordered(steps: &[BootStep]) -> (Vec<&BootStep>, f64) {
    let mut ordered: Vec<&BootStep> = steps.iter().collect();
    ordered.sort_by(|left, right| {
        let by_start = left.started.total_cmp(&right.started);
        by_start.then(left.ended.total_cmp(&right.ended))
    });
    let end = steps.iter().map(|step| step.ended).fold(0.0, f64::max);
    (ordered, end)
}

/// Where a time is on a scale of this length that ends at `end`.
fn place(time: f64, end: f64, length: f64) -> f64 {
    match end > 0.0 {
        true => (time / end).clamp(0.0, 1.0) * length,
        false => 0.0,
    }
}

/// A bar for each step. Its whole width is the time from the start of the kernel to the last step.
pub(crate) fn chart(steps: &[BootStep]) -> String {
    let (steps, end) = ordered(steps);
    let names = steps.iter().map(|step| step.name.chars().count()).max();
    let width = names.unwrap_or(0).max(4);
    let scale = format!("{end:.1} s");
    let room = COLUMNS.saturating_sub(1);
    let mut out = format!("{:width$}  0{scale:>room$}\n", "STEP");
    for step in steps {
        let column = |time: f64| {
            let place = place(time, end, COLUMNS as f64);
            // A number between 0 and COLUMNS.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let column = place.round() as usize;
            column
        };
        let from = column(step.started).min(COLUMNS - 1);
        let length = column(step.ended).saturating_sub(from).max(1);
        let bar = "█".repeat(length);
        let rest = COLUMNS.saturating_sub(from + length);
        let failed = if step.error.is_some() { "  failed" } else { "" };
        let took = step.ended - step.started;
        let _ = writeln!(
            out,
            "{:width$}  {:from$}{bar}{:rest$} {took:8.3} s{failed}",
            step.name, "", ""
        );
    }
    out
}

/// The same as a picture.
pub(crate) fn svg(steps: &[BootStep], title: &str) -> String {
    let (steps, end) = ordered(steps);
    let height = HEAD + ROW * (steps.len() as f64) + 12.0;
    let length = WIDTH - NAMES - 90.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for line in 0..=10_u32 {
        let tick = f64::from(line) * spacing(end);
        if tick > end {
            break;
        }
        let x = NAMES + place(tick, end, length);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{height}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{tick:.1} s</text>",
            HEAD - 6.0,
            HEAD - 10.0
        );
    }
    for (row, step) in steps.iter().enumerate() {
        let y = HEAD + ROW * (row as f64);
        let from = NAMES + place(step.started, end, length);
        let width = (NAMES + place(step.ended, end, length) - from).max(1.0);
        let color = if step.error.is_some() {
            "#c0392b"
        } else {
            "#2f6f9f"
        };
        let took = step.ended - step.started;
        let hint = step.error.as_deref().unwrap_or(&step.name);
        let _ = writeln!(
            out,
            "<g><title>{}</title><text x=\"8\" y=\"{base:.1}\">{}</text>\
             <rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"14\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{base:.1}\" fill=\"#333\">{took:.3} s</text></g>",
            escaped(hint),
            escaped(&step.name),
            from + width + 5.0,
            base = y + 15.0,
            top = y + 4.0
        );
    }
    out + "</svg>\n"
}

/// Seconds between two lines of the grid: at most ten of them.
fn spacing(end: f64) -> f64 {
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0];
    let fits = steps.into_iter().find(|step| end / step <= 10.0);
    fits.unwrap_or((end / 10.0).ceil())
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&quot;",
            // XML has no words for other control characters.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<BootStep> {
        let step = |name: &str, started, ended, error: Option<&str>| BootStep {
            name: name.to_owned(),
            started,
            ended,
            error: error.map(str::to_owned),
        };
        vec![
            step("stage1", 1.0, 2.0, None),
            step("hostd-ready", 3.0, 4.0, None),
            step("modules", 2.0, 4.0, Some("a <b> & \"c\"\n")),
        ]
    }

    #[test]
    fn bars_are_where_their_times_are() {
        let chart = chart(&steps());
        let lines: Vec<&str> = chart.lines().collect();
        assert!(lines[0].ends_with("4.0 s"), "{chart}");
        let bar = |line: &str| {
            let column = line.chars().position(|c| c == '█').unwrap();
            (column - 13, line.chars().filter(|c| *c == '█').count())
        };
        assert!(lines[1].starts_with("stage1"), "{chart}");
        assert_eq!(bar(lines[1]), (12, 12), "{chart}");
        assert!(
            lines[2].starts_with("modules") && lines[2].ends_with("failed"),
            "{chart}"
        );
        assert_eq!(bar(lines[2]), (24, 24), "{chart}");
        assert_eq!(bar(lines[3]), (36, 12), "{chart}");
        assert!(
            lines.iter().all(|line| line.chars().count() < 90),
            "{chart}"
        );
    }

    #[test]
    fn odd_times_and_words_make_no_odd_picture() {
        let picture = svg(&steps(), "keelson <1>");
        assert!(picture.contains("keelson &lt;1&gt;"), "{picture}");
        assert!(
            picture.contains("a &lt;b&gt; &amp; &quot;c&quot; "),
            "{picture}"
        );
        assert_eq!(picture.matches("<rect x").count(), 3);
        assert_eq!(chart(&[]).lines().count(), 1);
        assert!(svg(&[], "").ends_with("</svg>\n"));
        let mut odd = steps();
        for (index, time) in [f64::NAN, -5.0, 1e9].into_iter().enumerate() {
            odd[index].started = time;
            assert_eq!(chart(&odd).lines().count(), 4);
            assert!(svg(&odd, "").len() < 10_000);
        }
    }
}
