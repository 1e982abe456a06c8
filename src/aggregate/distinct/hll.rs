//! A count of different items as an HLL sketch of Apache DataSketches.
//!
//! A register of `UltraLogLog` knows the greatest level that it has met, and one more is what a register of
//! HLL is. Few items are coupons: the register and value of each, and bits of its token that tell it from
//! others. A sketch carries an estimate besides, which is what it answers with until it is merged; that is the
//! one from here, whose error is less than a reader allows for.

use super::{Distinct, Form, registers, registers_of, token};
use crate::aggregate::datasketches::hll_image::{self, LG_K_MIN};
use crate::error::{Error, Result};

/// 2^64 / φ, by whose product bits of a token are as good as drawn.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Distinct {
    /// The state as an HLL sketch of Apache DataSketches of `2^lg_k` registers, which any of its implementations
    /// reads. It answers as this state does, with the bounds of an HLL sketch.
    ///
    /// It can be merged with others of the same `lg_k` that were made so, from stores of the same software. *Not
    /// with sketches that were made elsewhere of the same items*: those hash otherwise, and each item that both
    /// have is counted twice. Nothing in an HLL sketch says how it was hashed, so nothing there can refuse it. For
    /// those there is [`Hll`](crate::aggregate::datasketches::Hll).
    ///
    /// ```
    /// use quipu::aggregate::{Distinct, datasketches::Hll};
    ///
    /// let mut users = Distinct::new(14)?;
    /// (0..100_000_u32).for_each(|user| users.insert(&user.to_le_bytes()));
    /// let there = Hll::from_bytes(&users.to_datasketches(12)?).unwrap();
    /// assert_eq!(there.estimate().value, users.estimate().value);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) unless `lg_k` is 4 to the state's precision.
    pub fn to_datasketches(&self, lg_k: u8) -> Result<Vec<u8>> {
        if !(LG_K_MIN..=self.precision()).contains(&lg_k) {
            return Err(Error::invalid(format!(
                "an lg_k of {lg_k}: it is {LG_K_MIN} to the precision of the state, {}",
                self.precision()
            )));
        }
        let registers = match &self.form {
            Form::Tokens(tokens) if hll_image::has_coupons(lg_k, tokens.len()) => {
                let coupons: Vec<u32> = tokens.iter().map(|token| coupon(token, lg_k)).collect();
                return Ok(hll_image::of_coupons(lg_k, &coupons));
            }
            Form::Tokens(tokens) => registers_of(tokens.iter(), lg_k),
            Form::Registers(registers) => registers::reduced(registers, lg_k.into()),
        };
        // 0 stays 0, which is below all others.
        let value = |register: &u8| (register >> 2).saturating_sub(lg_k - 2);
        let registers: Vec<u8> = registers.iter().map(value).collect();
        Ok(hll_image::of_registers(&registers, self.estimate().value))
    }
}

fn coupon(token: u64, lg_k: u8) -> u32 {
    let hash = token::hash(token);
    let register = (hash >> (64 - lg_k)) as u32;
    // Ones behind the rest stop the count of zeros.
    let level = (hash << lg_k | ((1 << lg_k) - 1)).leading_zeros() as u8;
    hll_image::coupon(lg_k, register, (token.wrapping_mul(MIX) >> 38) as u32, level + 1)
}
