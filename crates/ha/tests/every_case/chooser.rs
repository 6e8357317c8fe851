//! Enumerates every path through a generator: the generator asks for choices, the chooser counts through them.

/// Counts through all choices.
#[derive(Default)]
pub(crate) struct Chooser {
    /// The choices of this path: the value and the largest one.
    path: Vec<(usize, usize)>,
    at: usize,
    begun: bool,
}

impl Chooser {
    /// The next path; false when all were walked.
    pub(crate) fn more(&mut self) -> bool {
        self.at = 0;
        if !self.begun {
            self.begun = true;
            return true;
        }
        while let Some((value, largest)) = self.path.pop() {
            if value < largest {
                self.path.push((value + 1, largest));
                return true;
            }
        }
        false
    }

    /// One of these.
    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        if self.at == self.path.len() {
            self.path.push((0, items.len() - 1));
        }
        let (value, _) = self.path[self.at];
        self.at += 1;
        items[value].clone()
    }

    /// One of these, or the first when this dimension is not walked now.
    pub(crate) fn pick_if<T: Clone>(&mut self, walked: bool, items: &[T]) -> T {
        if walked { self.pick(items) } else { items[0].clone() }
    }
}

#[test]
fn every_path_is_walked_once() {
    let mut chooser = Chooser::default();
    let mut paths = Vec::new();
    while chooser.more() {
        let first = chooser.pick(&[0, 1]);
        paths.push((first, if first == 1 { chooser.pick(&[0, 1, 2]) } else { 9 }));
    }
    assert_eq!(paths, [(0, 9), (1, 0), (1, 1), (1, 2)]);
}
