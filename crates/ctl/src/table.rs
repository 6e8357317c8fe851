//! Tables as patronictl prints them, character by character: scripts cut them into columns.
//!
//!     + Cluster: demo (7391234567890123456) -----+   the title lies over the first rule
//!     | Member | Host     | Role    | State      |
//!     +--------+----------+---------+------------+   and between the rows, when a cell has several lines
//!     | pg-1   | 10.0.0.1 | Leader  | running    |
//!     +--------+----------+---------+------------+

/// On which side of its column a cell stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A column: its heading and the side of its cells. Headings stand on the same side.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub heading: String,
    pub side: Side,
}

/// Draws `rows` under `columns`, with `title` in the first rule. A row that is too short is filled with empty cells.
pub(crate) fn draw(title: Option<&str>, columns: &[Column], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).flat_map(|cell| cell.lines());
            cells.map(width).chain([width(&column.heading)]).max().unwrap_or_default()
        })
        .collect();
    let rule = rule(&widths);
    let mut out = match title {
        Some(title) => entitled(&rule, title),
        None => rule.clone(),
    };
    out.push('\n');
    let headings: Vec<String> = columns.iter().map(|column| column.heading.clone()).collect();
    push_row(&mut out, columns, &widths, &headings);
    out.push_str(&rule);
    out.push('\n');
    let tall = rows.iter().flatten().any(|cell| cell.contains('\n'));
    for (at, row) in rows.iter().enumerate() {
        if tall && at > 0 {
            out.push_str(&rule);
            out.push('\n');
        }
        push_row(&mut out, columns, &widths, row);
    }
    out.push_str(&rule);
    out.push('\n');
    out
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn rule(widths: &[usize]) -> String {
    let mut rule = String::from("+");
    for width in widths {
        rule.push_str(&"-".repeat(width + 2));
        rule.push('+');
    }
    rule
}

fn entitled(rule: &str, title: &str) -> String {
    let mut line = format!("+ {title} ");
    let rest: String = rule.chars().skip(width(&line)).collect();
    if rest.is_empty() {
        line.push('+');
    }
    line + &rest
}

fn push_row(out: &mut String, columns: &[Column], widths: &[usize], row: &[String]) {
    let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or_default().max(1);
    for line in 0..height {
        out.push('|');
        for ((at, column), width) in columns.iter().enumerate().zip(widths) {
            let text = row.get(at).and_then(|cell| cell.lines().nth(line)).unwrap_or_default();
            match column.side {
                Side::Left => out.push_str(&format!(" {text:<width$} |")),
                Side::Right => out.push_str(&format!(" {text:>width$} |")),
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, Side, draw};

    const COLUMNS: [(&str, Side); 2] = [("Member", Side::Left), ("TL", Side::Right)];

    fn columns() -> Vec<Column> {
        COLUMNS.map(|(heading, side)| Column { heading: heading.to_owned(), side }).to_vec()
    }

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn the_title_lies_over_the_rule() {
        insta::assert_snapshot!(draw(Some("A"), &columns(), &[row(&["pg-1", "12"]), row(&["pg-2"])]), @r"
        + A -----+----+
        | Member | TL |
        +--------+----+
        | pg-1   | 12 |
        | pg-2   |    |
        +--------+----+
        ");
        assert!(
            draw(Some("a title longer than the table"), &columns(), &[])
                .starts_with("+ a title longer than the table +\n")
        );
    }

    #[test]
    fn tall_cells_separate_the_rows() {
        insta::assert_snapshot!(draw(None, &columns(), &[row(&["a\nb", "1"]), row(&["c", "2"])]), @r"
        +--------+----+
        | Member | TL |
        +--------+----+
        | a      |  1 |
        | b      |    |
        +--------+----+
        | c      |  2 |
        +--------+----+
        ");
    }
}
