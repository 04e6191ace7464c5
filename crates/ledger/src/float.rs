//! Floating-point numbers, which occur in the asset data and metadata of clients and nowhere else.
//! They are read, written and never calculated with.
#![expect(
    clippy::disallowed_types,
    reason = "the one place of the crate that knows floats"
)]

use std::fmt;

/// A floating-point number that is neither NaN nor infinite. Shown in canonical form (asset ledger,
/// section 4.2, rule 5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finite(f64);

impl Finite {
    /// The number, unless it is NaN or infinite.
    pub fn new(number: f64) -> Option<Finite> {
        number.is_finite().then_some(Finite(number))
    }

    /// Reads a JSON number; `None` when it is none or overflows to infinity.
    pub fn parse(text: &str) -> Option<Finite> {
        text.parse().ok().and_then(Finite::new)
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rust's exponent form has the shortest digits that read back the same: `-1.2345e-5`.
        let shortest = format!("{:e}", self.0);
        let (mantissa, exponent) = shortest
            .split_once('e')
            .expect("the exponent form has an e");
        let exponent: i32 = exponent.parse().expect("the exponent is an integer");
        let (sign, mantissa) = match mantissa.strip_prefix('-') {
            Some(mantissa) => ("-", mantissa),
            None => ("", mantissa),
        };
        let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
        f.write_str(sign)?;
        match exponent {
            -4..=-1 => {
                let zeros = exponent.unsigned_abs() as usize - 1;
                write!(f, "0.{:0<zeros$}{digits}", "")
            }
            0..=15 => {
                let whole = exponent as usize + 1;
                if digits.len() <= whole {
                    write!(f, "{digits:0<whole$}.0")
                } else {
                    write!(f, "{}.{}", &digits[..whole], &digits[whole..])
                }
            }
            _ => {
                let direction = if exponent < 0 { '-' } else { '+' };
                write!(f, "{mantissa}e{direction}{:02}", exponent.unsigned_abs())
            }
        }
    }
}
