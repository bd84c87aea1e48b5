//! A picture of hosts and what runs on them.

/// A host: its title and the lines inside.
#[derive(Clone, Debug)]
pub(crate) struct HostBox {
    pub(crate) title: String,
    pub(crate) lines: Vec<String>,
}

/// What every host has.
const FOOT: &str = "eBPF + weftd";

/// Boxes side by side under a title, on the wire that joins them.
pub(crate) fn picture(title: &str, boxes: &[HostBox]) -> String {
    let width = boxes
        .iter()
        .flat_map(|b| b.lines.iter().chain([&b.title]).map(String::as_str))
        .chain([FOOT])
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let height = boxes.iter().map(|b| b.lines.len()).max().unwrap_or(0);
    let row = |cell: &dyn Fn(&HostBox) -> String| {
        let cells: Vec<String> = boxes.iter().map(cell).collect();
        format!("  {}\n", cells.join("  ")).trim_end().to_owned() + "\n"
    };
    let mut drawn = format!("  {title}\n\n");
    drawn += &row(&|b| format!("+-- {} {}+", b.title, "-".repeat(width + 1 - b.title.chars().count())));
    for index in 0..height {
        drawn += &row(&|b| {
            format!(
                "|  {:<width$}   |",
                b.lines.get(index).map_or("", String::as_str),
                width = width
            )
        });
    }
    drawn += &row(&|_| format!("|  {:<width$}   |", FOOT));
    drawn += &row(&|_| {
        format!(
            "+{}|{}+",
            "-".repeat((width + 4) / 2),
            "-".repeat(width + 4 - (width + 4) / 2)
        )
    });
    let to_first = 3 + (width + 4) / 2;
    let to_next = width + 8;
    let wire = vec!["+"; boxes.len()].join(&"-".repeat(to_next));
    drawn + &format!("{}{wire}  underlay, VXLAN on UDP 4789\n", " ".repeat(to_first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_stand_side_by_side() {
        let one = HostBox {
            title: "node1 192.168.50.1".to_owned(),
            lines: vec!["my-web.1  10.0.0.3".to_owned(), "client 10.0.0.6".to_owned()],
        };
        let two = HostBox {
            title: "node2 192.168.50.2".to_owned(),
            lines: vec!["my-web.2  10.0.0.4".to_owned()],
        };
        let expected = [
            "  my-net",
            "",
            "  +-- node1 192.168.50.1 -+  +-- node2 192.168.50.2 -+",
            "  |  my-web.1  10.0.0.3   |  |  my-web.2  10.0.0.4   |",
            "  |  client 10.0.0.6      |  |                       |",
            "  |  eBPF + weftd         |  |  eBPF + weftd         |",
            "  +-----------|-----------+  +-----------|-----------+",
            "              +--------------------------+  underlay, VXLAN on UDP 4789",
            "",
        ];
        let drawn = picture("my-net", &[one, two]);
        assert_eq!(drawn.split('\n').collect::<Vec<_>>(), expected, "{drawn}");
    }
}
