//! Tables as they come, and at the end every target with what was found.

/// What is printed, and the targets so far.
#[derive(Default)]
pub struct Report {
    targets: Vec<Target>,
}

struct Target {
    what: String,
    found: String,
    limit: String,
    met: bool,
}

/// Begins a section.
pub fn title(title: &str) {
    println!("\n## {title}\n");
}

/// Says what a reader must not miss.
pub fn warn(message: &str) {
    println!("\n**WARNING: {message}.**");
}

/// Begins a table.
pub fn table(columns: &[&str]) {
    println!("| {} |", columns.join(" | "));
    println!("|---|{}", "---:|".repeat(columns.len() - 1));
}

/// A row of it.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

impl Report {
    /// A figure that must not be above its limit.
    pub fn at_most(&mut self, what: impl Into<String>, found: f64, limit: f64, unit: &str) {
        let (shown, limit_shown) = (format!("{found:.3}{unit}"), format!("<= {limit:.3}{unit}"));
        self.targets.push(Target { what: what.into(), found: shown, limit: limit_shown, met: found <= limit });
    }

    /// The same where no placement is below a floor: a limit that is below that cannot be kept, and is no target.
    pub fn at_most_if_possible(&mut self, what: impl Into<String>, (found, floor): (f64, f64), limit: f64, unit: &str) {
        if floor <= limit {
            self.at_most(what, found, limit, unit);
            return;
        }
        let limit = format!("<= {limit:.3}{unit}, but no placement is below {floor:.3}{unit}");
        self.targets.push(Target { what: what.into(), found: format!("{found:.3}{unit}"), limit, met: true });
    }

    /// A figure that must not be below its limit.
    pub fn at_least(&mut self, what: impl Into<String>, found: f64, limit: f64) {
        let (shown, limit_shown) = (format!("{found:.4}"), format!(">= {limit:.4}"));
        self.targets.push(Target { what: what.into(), found: shown, limit: limit_shown, met: found >= limit });
    }

    /// A section that ended early.
    pub fn broken(&mut self, section: &str, error: &anyhow::Error) {
        warn(&format!("{section} ended early: {error:#}"));
        let (found, limit) = (format!("{error:#}"), "no error".to_owned());
        self.targets.push(Target { what: section.to_owned(), found, limit, met: false });
    }

    /// Prints every target, and whether all are met.
    pub fn conclude(&self) -> bool {
        title("Targets");
        table(&["target", "found", "limit", ""]);
        for Target { what, found, limit, met } in &self.targets {
            row(&[what.clone(), found.clone(), limit.clone(), if *met { "pass" } else { "**FAIL**" }.to_owned()]);
        }
        let missed = self.targets.iter().filter(|target| !target.met).count();
        println!("\n{} targets, {missed} missed", self.targets.len());
        missed == 0
    }
}
