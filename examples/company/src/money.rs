//! Money: whole cents, and the two rules of the company that calculate with them.
//!
//! Owns: cents, their decimal spelling, margins, the rounding of shop prices.
//! Never: holds an amount in a float.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount in euro cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cents(i64);

/// A share in hundredths of a percent: 1,200 is 12 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BasisPoints(pub u32);

/// An order that earns less than this share of its sale price is unprofitable.
pub const MINIMUM_MARGIN: BasisPoints = BasisPoints(1_200);

/// Shop prices are whole multiples of this.
const PRICE_STEP_CENTS: i128 = 10;

/// The text is not a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a price is 1 to 7 digits, a point, two digits, and more than zero, such as 19.90")]
pub struct PriceTextError;

impl Cents {
    /// An amount of so many cents.
    #[must_use]
    pub const fn new(cents: i64) -> Self {
        Self(cents)
    }

    /// The number of cents.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Reads a price as the north shop spells it.
    ///
    /// # Errors
    /// The text has another shape than `19.90`, or is zero.
    pub fn from_decimal(text: &str) -> Result<Self, PriceTextError> {
        let (euros, cents) = text.split_once('.').ok_or(PriceTextError)?;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !(1..=7).contains(&euros.len()) || cents.len() != 2 || !digits(euros) || !digits(cents) {
            return Err(PriceTextError);
        }
        let euros: i64 = euros.parse().map_err(|_| PriceTextError)?;
        let cents: i64 = cents.parse().map_err(|_| PriceTextError)?;
        match euros * 100 + cents {
            0 => Err(PriceTextError),
            amount => Ok(Self(amount)),
        }
    }

    /// The shop price that keeps the ratio of cost to price when the cost moves, rounded up to whole ten cents.
    ///
    /// With margin = 1 - old cost / old price, new cost / (1 - margin) is new cost * old price / old cost; said this
    /// way it is exact, while the form with the margin in a float turns 99.00 into 99.10.
    /// None when a cost or the price is not positive, or the answer does not fit.
    #[must_use]
    pub fn repriced(self, old_cost: Self, new_cost: Self) -> Option<Self> {
        if self.0 <= 0 || old_cost.0 <= 0 || new_cost.0 <= 0 {
            return None;
        }
        let dividend = i128::from(new_cost.0) * i128::from(self.0);
        let divisor = i128::from(old_cost.0) * PRICE_STEP_CENTS;
        let steps = (dividend + divisor - 1) / divisor;
        i64::try_from(steps * PRICE_STEP_CENTS).ok().map(Self)
    }

    /// Whether selling at this price what costs `cost` earns less than `minimum` of the price.
    #[must_use]
    pub fn earns_less_than(self, minimum: BasisPoints, cost: Self) -> bool {
        let earned = i128::from(self.0) - i128::from(cost.0);
        earned * 10_000 < i128::from(minimum.0) * i128::from(self.0)
    }
}

impl fmt::Display for Cents {
    /// The decimal spelling: `19.90`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let amount = self.0.unsigned_abs();
        write!(out, "{sign}{}.{:02}", amount / 100, amount % 100)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_shape_of_a_price_is_a_price() {
        assert_eq!(Cents::from_decimal("19.90"), Ok(Cents::new(1_990)));
        assert_eq!(Cents::from_decimal("0.01"), Ok(Cents::new(1)));
        assert_eq!(Cents::from_decimal("9999999.99"), Ok(Cents::new(999_999_999)));
        for text in [
            "",
            "19",
            "19.9",
            "19.900",
            "-1.00",
            "+1.00",
            "1,00",
            " 1.00",
            "0.00",
            ".50",
            "10000000.00",
            "1e3.00",
        ] {
            assert_eq!(Cents::from_decimal(text), Err(PriceTextError), "{text:?}");
        }
    }

    #[test]
    fn a_price_that_comes_out_even_is_not_rounded_up() {
        let old_price = Cents::new(9_000);
        assert_eq!(old_price.repriced(Cents::new(5_200), Cents::new(5_720)), Some(Cents::new(9_900)));
        assert_eq!(old_price.repriced(Cents::new(5_200), Cents::new(5_721)), Some(Cents::new(9_910)));
    }

    #[test]
    fn exactly_the_minimum_margin_is_enough() {
        assert!(!Cents::new(6_500).earns_less_than(MINIMUM_MARGIN, Cents::new(5_720)));
        assert!(Cents::new(6_500).earns_less_than(MINIMUM_MARGIN, Cents::new(5_721)));
    }

    #[test]
    fn nothing_is_priced_without_a_cost() {
        assert_eq!(Cents::new(100).repriced(Cents::new(0), Cents::new(10)), None);
        assert_eq!(Cents::new(100).repriced(Cents::new(10), Cents::new(0)), None);
        assert_eq!(Cents::new(i64::MAX).repriced(Cents::new(1), Cents::new(2)), None);
    }

    proptest! {
        #[test]
        fn a_price_reads_back_as_it_was_written(cents in 1_i64..1_000_000_000) {
            let price = Cents::new(cents);
            prop_assert_eq!(Cents::from_decimal(&price.to_string()), Ok(price));
        }

        #[test]
        fn the_new_price_keeps_the_ratio_and_is_the_lowest_step_that_does(
            price in 1_i64..10_000_000, old_cost in 1_i64..10_000_000, new_cost in 1_i64..10_000_000,
        ) {
            let new = Cents::new(price).repriced(Cents::new(old_cost), Cents::new(new_cost)).unwrap().get();
            prop_assert_eq!(new % 10, 0);
            let exact = i128::from(new_cost) * i128::from(price);
            prop_assert!(i128::from(new) * i128::from(old_cost) >= exact);
            prop_assert!(i128::from(new - 10) * i128::from(old_cost) < exact);
        }
    }
}
