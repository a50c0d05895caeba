//! A curve drawn with characters, for LATENCY GRAPH.
//!
//! Each sample is a column. Its height is proportional to its position in the range of values, in steps of a third of
//! a line: `_`, `o`, `#`, and bars below. Under the curve, after a blank line, the label of each sample runs
//! downwards.

/// Lines of the curve.
const LINES: usize = 4;

/// Steps of one line, lowest first.
const STEPS: [u8; 3] = *b"_o#";

/// Fills the lines below the top of a column.
const BELOW: u8 = b'|';

/// Draws samples, each a value and its label, in rows of `columns`. Complexity: O(samples).
pub(crate) fn draw(samples: &[(u64, String)], columns: usize) -> String {
    let (lowest, highest) = samples.iter().fold((u64::MAX, 0), |(low, high), &(value, _)| {
        (low.min(value), high.max(value))
    });
    // Without samples nothing is drawn; equal values are all at the bottom.
    let range = highest.saturating_sub(lowest).max(1);
    let all = LINES * STEPS.len();
    let height = |value: u64| {
        let share = u128::from(value - lowest) * all as u128 / u128::from(range);
        usize::try_from(share).unwrap_or(all).min(all - 1)
    };
    let mut drawing = String::new();
    for (index, block) in samples.chunks(columns).enumerate() {
        if index > 0 {
            drawing.push('\n');
        }
        for line in (0..LINES).rev() {
            push_line(&mut drawing, block, |(value, _)| {
                let height = height(*value);
                match height.checked_sub(line * STEPS.len()) {
                    None => b' ',
                    Some(step) => STEPS.get(step).copied().unwrap_or(BELOW),
                }
            });
        }
        let longest = block.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
        push_line(&mut drawing, block, |_| b' ');
        for place in 0..longest {
            push_line(&mut drawing, block, |(_, label)| {
                label.as_bytes().get(place).copied().unwrap_or(b' ')
            });
        }
    }
    drawing
}

fn push_line(drawing: &mut String, block: &[(u64, String)], character: impl Fn(&(u64, String)) -> u8) {
    drawing.extend(block.iter().map(|sample| char::from(character(sample))));
    drawing.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[u64]) -> Vec<(u64, String)> {
        values
            .iter()
            .enumerate()
            .map(|(index, &value)| (value, format!("{}s", 10 - index)))
            .collect()
    }

    #[test]
    fn a_curve_rises_in_thirds_of_a_line() {
        let drawing = draw(&samples(&[1, 7, 13]), 80);
        assert_eq!(drawing, "  #\n _|\n ||\n_||\n   \n198\n0ss\ns  \n");
    }

    #[test]
    fn one_sample_lies_at_the_bottom() {
        assert_eq!(draw(&samples(&[5])[..1], 80), " \n \n \n_\n \n1\n0\ns\n");
        assert_eq!(draw(&[], 80), "");
    }

    #[test]
    fn long_curves_are_broken() {
        let drawing = draw(&samples(&[1, 1, 1]), 2);
        assert_eq!(drawing.lines().filter(|line| *line == "__").count(), 1);
        assert!(drawing.contains("\n\n"), "{drawing:?}");
    }
}
