//! The comparator, with tests of its own: an oracle must be seen to bite.

use std::fmt::Write;

/// What one comparison saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Elements that were compared.
    pub compared: usize,
    /// The largest error in units of its bound.
    pub worst: f64,
}

/// Compares element by element: `got` must be within `bound` of `want`.
///
/// NaN in `want` is contract N8's unspecified value and is left out. An infinity must be matched exactly. All else must be finite and
/// within its bound; the worst element is named.
pub fn compare(got: &[f64], want: &[f64], bound: &[f64], dims: &[usize]) -> Result<Seen, String> {
    if got.len() != want.len() || want.len() != bound.len() {
        return Err(format!("{} elements, not {} (bounds: {})", got.len(), want.len(), bound.len()));
    }
    let mut seen = Seen { compared: 0, worst: 0.0 };
    let mut failed = 0;
    let mut worst_at = 0;
    for (i, ((&got, &want), &bound)) in got.iter().zip(want).zip(bound).enumerate() {
        if want.is_nan() {
            continue;
        }
        seen.compared += 1;
        let ratio = ratio(got, want, bound);
        if ratio > 1.0 {
            failed += 1;
        }
        if ratio > seen.worst {
            seen.worst = ratio;
            worst_at = i;
        }
    }
    if failed == 0 {
        return Ok(seen);
    }
    let mut text = format!("{failed} of {} elements out of bounds; worst at {:?}: ", seen.compared, index(worst_at, dims));
    let error = (got[worst_at] - want[worst_at]).abs();
    let _ = write!(text, "got {:e}, expected {:e}, error {error:e}, bound {:e}", got[worst_at], want[worst_at], bound[worst_at]);
    Err(text)
}

/// The error in units of the bound; infinite where no bound would do. Never NaN.
fn ratio(got: f64, want: f64, bound: f64) -> f64 {
    if got == want {
        return 0.0;
    }
    let ratio = (got - want).abs() / bound;
    // An infinite bound would take anything.
    if got.is_finite() && want.is_finite() && bound.is_finite() && ratio.is_finite() { ratio } else { f64::INFINITY }
}

/// Row-major index tuple of an element.
fn index(mut element: usize, dims: &[usize]) -> Vec<usize> {
    let mut at: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&dim| {
            let coordinate = element % dim.max(1);
            element /= dim.max(1);
            coordinate
        })
        .collect();
    at.reverse();
    at
}

/// The comparator's own tests, as trials of the binary.
pub fn self_test() -> Result<(), String> {
    let want: Vec<f64> = (0..12).map(|i| f64::from(i) * 0.75 + 1.0).collect();
    let bound = vec![1e-6; 12];
    let dims = [3, 4];
    let check = |got: &[f64], want: &[f64]| compare(got, want, &bound, &dims);
    let expect = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };

    expect(check(&want, &want) == Ok(Seen { compared: 12, worst: 0.0 }), "equal values must pass")?;
    let near: Vec<f64> = want.iter().map(|v| v + 5e-7).collect();
    expect(check(&near, &want).is_ok_and(|seen| (seen.worst - 0.5).abs() < 1e-6), "half a bound must pass as half")?;
    for (what, bad) in [("one wrong element", 8.5), ("a NaN", f64::NAN), ("an infinity", f64::INFINITY), ("two bounds off", want[7] + 2e-6)]
    {
        let mut got = want.clone();
        got[7] = bad;
        let message = check(&got, &want).err().unwrap_or_default();
        expect(message.contains("1 of 12") && message.contains("[1, 3]"), &format!("{what} must fail and be named, not: {message}"))?;
    }
    let transposed: Vec<f64> = (0..12).map(|i| want[i % 3 * 4 + i / 3]).collect();
    expect(check(&transposed, &want).is_err(), "a transpose must fail")?;
    expect(check(&want[..11], &want).is_err(), "a missing element must fail")?;
    let mut masked = want.clone();
    masked[3] = f64::NEG_INFINITY;
    expect(check(&masked, &masked).is_ok(), "matching infinities must pass")?;
    expect(check(&want, &masked).is_err(), "a finite value for an infinity must fail")?;
    let mut unspecified = want.clone();
    unspecified[3] = f64::NAN;
    expect(check(&want, &unspecified).is_ok_and(|seen| seen.compared == 11), "an unspecified element must be left out")?;
    expect(compare(&[1.0], &[1.0 + 1e-12], &[0.0], &[1]).is_err(), "a bound of 0 must mean equality")?;
    expect(compare(&[1.0], &[1.5], &[f64::NAN], &[1]).is_err(), "a bound that is NaN must fail")?;
    expect(compare(&[1.0], &[1.5], &[f64::INFINITY], &[1]).is_err(), "an infinite bound must fail")
}
