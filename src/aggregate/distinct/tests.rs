//! What cannot be seen from outside: registers and estimates beside the reference's, tokens beside the
//! hashes they stand for.

use super::*;
use proptest::prelude::*;

/// A step of `SplitMix64` from this state.
fn splitmix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn registers(precision: u8, hashes: impl Iterator<Item = u64>) -> Box<[u8]> {
    let mut registers = vec![0; 1 << precision].into_boxed_slice();
    hashes.for_each(|hash| registers::update(&mut registers, hash));
    registers
}

/// Precision, number n of hashes, FNV-1a of the registers, the same of those merged with the hashes
/// n/2 to 3n/2, maximum likelihood estimate: of `UltraLogLog` in hash4j, for the hashes `splitmix(i)`.
#[rustfmt::skip]
const REFERENCE: &[(u8, u64, u64, u64, f64)] = &[
    (8, 0, 0xd80a_c658_736b_b725, 0xd80a_c658_736b_b725, 0.0),
    (8, 1, 0x1fd9_8685_0510_2da1, 0x1fd9_8685_0510_2da1, 0.998_367),
    (8, 10, 0x73b7_ebfc_a591_5461, 0x1f7d_68db_d512_7935, 9.099_936),
    (8, 100, 0x2bb6_50fa_f817_337e, 0xa7bb_34a9_a953_0648, 91.811_334),
    (8, 1_000, 0xc977_7222_415e_de23, 0x0fbe_21e8_edac_6ce5, 987.654_458),
    (8, 10_000, 0x6801_5859_cea3_0e9d, 0xab0b_960c_f5b3_deb1, 9_467.945_41),
    (8, 100_000, 0x3662_81b5_71c1_bdf4, 0xff31_436f_35ed_1219, 103_142.378_307),
    (8, 1_000_000, 0x0f9d_7c89_1583_a828, 0x45e6_3f72_ff76_18db, 1_101_594.848_137),
    (10, 0, 0x51d8_8627_df28_7325, 0x51d8_8627_df28_7325, 0.0),
    (10, 1, 0xa0d5_4a3f_d953_ffc1, 0xa0d5_4a3f_d953_ffc1, 0.999_774),
    (10, 10, 0xe190_1202_a1e5_a965, 0x00bc_7cf7_9abf_5cad, 10.016_861),
    (10, 100, 0x5c7a_8258_6b33_4ae8, 0x1672_98c2_ac44_eb12, 97.100_517),
    (10, 1_000, 0x8552_8bbd_97b8_b542, 0x1704_ec0f_8849_a406, 996.636_576),
    (10, 10_000, 0x6b21_8c95_c725_ff1a, 0x3df0_bc2f_b494_3f27, 10_043.790_78),
    (10, 100_000, 0x7e6f_72e2_7b13_c257, 0xcb9d_990d_dba1_c7ec, 100_189.655_815),
    (10, 1_000_000, 0x952f_66f0_b01d_211e, 0xe853_c264_e701_1f67, 1_023_536.995_163),
    (12, 0, 0xb93a_0c83_ce3b_6325, 0xb93a_0c83_ce3b_6325, 0.0),
    (12, 1, 0x59cd_fe4b_39c9_6269, 0x59cd_fe4b_39c9_6269, 1.000_069),
    (12, 10, 0x0d15_7876_8cc4_bdf5, 0xcc01_fbd2_67ef_1271, 10.004_665),
    (12, 100, 0xe13e_491b_a544_d79d, 0xd147_3eb5_d82a_b779, 98.522_288),
    (12, 1_000, 0x7ca0_7584_48e5_e422, 0xee2a_9631_0855_47ac, 989.766_91),
    (12, 10_000, 0x446f_4c63_aa1c_ffdb, 0x9b8c_91e6_a8ea_c9bc, 9_998.815_608),
    (12, 100_000, 0xbd2a_a767_0218_34af, 0x403e_0b51_02b9_919b, 101_165.813_586),
    (12, 1_000_000, 0xdcc0_408f_2963_819e, 0xa56c_5db5_afbe_d1f2, 1_017_097.297_164),
    (13, 0, 0xb9d1_03fd_6854_a325, 0xb9d1_03fd_6854_a325, 0.0),
    (13, 1, 0x8ed4_990c_6013_8bb9, 0x8ed4_990c_6013_8bb9, 1.000_006),
    (13, 10, 0x1554_bb16_d511_0d49, 0x9408_a905_5c06_3c6d, 10.002_818),
    (13, 100, 0x8104_9160_68a4_4111, 0xfe8c_bcc6_b58b_744d, 98.280_007),
    (13, 1_000, 0x6599_905b_2385_c5b3, 0x8d19_579a_2257_66a7, 993.510_997),
    (13, 10_000, 0xa3e6_23c5_145e_c8af, 0x9571_f8c2_89a1_e60b, 9_948.146_027),
    (13, 100_000, 0xa241_d02e_5652_3707, 0x0d09_eab6_8ea7_e368, 100_739.764_966),
    (13, 1_000_000, 0x54fa_02a5_90e0_9fac, 0x6993_9fea_fc2e_dc1a, 1_008_730.379_713),
    (14, 0, 0x9c1b_da7f_8c87_2325, 0x9c1b_da7f_8c87_2325, 0.0),
    (14, 1, 0x1070_fc31_15c5_fcd9, 0x1070_fc31_15c5_fcd9, 0.999_974),
    (14, 10, 0x4ffb_51a9_0a84_91bd, 0x83e6_263a_973f_c709, 10.001_318),
    (14, 100, 0x7914_3f93_e685_d905, 0x13db_37d5_6ea0_42b5, 99.146_018),
    (14, 1_000, 0x8031_6aba_0d9f_4122, 0x4306_3643_b921_16d4, 997.905_82),
    (14, 10_000, 0x0a5b_dd07_14e8_7217, 0xc881_b0ac_4c7a_a82f, 9_937.887_083),
    (14, 100_000, 0x963a_ff8a_f7cd_17da, 0x37c8_dadd_ef6c_88c3, 101_129.432_775),
    (14, 1_000_000, 0xc286_6e1d_b3ff_39ff, 0xd61c_9b76_4af3_d274, 1_013_842.537_292),
];

#[test]
fn registers_and_estimates_are_the_reference_s() {
    assert_eq!(REFERENCE.len(), 40);
    for (precision, n, digest, digest_merged, estimate) in REFERENCE.iter().copied() {
        let case = format!("precision {precision}, {n} hashes");
        let mut one = registers(precision, (0..n).map(splitmix));
        assert_eq!(fnv1a(&one), digest, "{case}");
        // The reference stops a thousandth of a standard error before.
        let (is, off) = (registers::estimate(&one), 1e-3 * registers::standard_error(precision));
        assert!((is - estimate).abs() <= off * estimate + 1e-5, "{case}: {is}, not {estimate}");

        registers::merge(&mut one, &registers(precision, (n / 2..n + n / 2).map(splitmix)));
        assert_eq!(fnv1a(&one), digest_merged, "{case}, merged");
        // What it gives for precisions of 8 to 12, had from higher ones.
        if let Some(lower) = REFERENCE.iter().find(|r| (r.0 + 2, r.1) == (precision, n)) {
            let reduced = registers::reduced(&one, u32::from(precision) - 2);
            assert_eq!(fnv1a(&reduced), lower.3, "{case}, merged and reduced");
        }
    }
}

/// Tokens leave the registers of their hashes whatever they begin with.
#[test]
fn tokens_say_what_their_hashes_say() {
    for zeros in 0..=64 {
        for low in [0, 1, u64::MAX, 0x5555_5555_5555_5555] {
            for index in [0, 1, 0x2_0000, 0x3_ffff] {
                let rest = if zeros > 45 { 0 } else { (1 << 45 | low >> 19) >> zeros };
                let hash = index << 46 | rest;
                let token = token::of(hash);
                assert!(token > 0 && token::is_token(token), "{hash:x}");
                assert_eq!(token::of(token::hash(token)), token, "{hash:x}");
                for precision in PRECISION_MIN..=PRECISION_MAX {
                    let [of_hash, of_token] = [hash, token::hash(token)]
                        .map(|hash| registers(precision, [hash].into_iter()));
                    assert!(of_hash == of_token, "{hash:x} at {precision}");
                    assert!(registers::has(&of_hash, hash) && registers::are_registers(&of_hash));
                }
            }
        }
    }
    let fields = (0..1 << 22).filter(|field| token::is_token(*field)).count();
    assert_eq!(fields, (1 << 22) - 64 + 31);
    assert!(!token::is_token(1 << 40 | 64));
}

/// Hashes whose index and level are not as rare as in those of items.
fn hashes(most: usize) -> impl Strategy<Value = Vec<u64>> {
    let hash = (any::<u64>(), 0..64_u32, 0..4_u32).prop_map(|(hash, zeros, keep)| {
        let index = hash & !(u64::MAX >> (4 + keep));
        index | (hash << 8 | 0xff) >> 8 >> zeros & (u64::MAX >> 18)
    });
    prop::collection::vec(hash, 0..most)
}

proptest! {
    /// Register by register against the sets of levels that they stand for.
    #[test]
    fn merging_registers_is_the_union_of_their_levels(
        precision in PRECISION_MIN..=8_u8, one in hashes(300), two in hashes(300),
    ) {
        let mut merged = registers(precision, one.iter().copied());
        registers::merge(&mut merged, &registers(precision, two.iter().copied()));
        let all = one.iter().chain(&two).copied();
        let direct = registers(precision, all);
        prop_assert_eq!(&merged, &direct);
        prop_assert!(registers::are_registers(&merged) || one.len() + two.len() == 0);
        for lower in PRECISION_MIN..=precision {
            let reduced = registers::reduced(&merged, lower.into());
            prop_assert_eq!(reduced, registers(lower, one.iter().chain(&two).copied()));
        }
    }
}

/// All that 18 bits and a level can say lies in the 256 values of a byte.
#[test]
fn a_register_is_one_of_those_that_levels_leave() {
    for precision in [PRECISION_MIN, 12, PRECISION_MAX] {
        let level = |level: u32| match 64 - u32::from(precision) - level {
            0 => 0,
            bits => 1_u64 << (bits - 1),
        };
        let mut seen = std::collections::BTreeSet::new();
        for top in 0..=64 - u32::from(precision) {
            for below in 0..4 {
                let two = [1, 2].into_iter().filter(|by| below >> (by - 1) & 1 == 1);
                let levels = two.filter_map(|by| top.checked_sub(by)).chain([top]);
                seen.insert(registers(precision, levels.map(level))[0]);
            }
        }
        for register in 0..=255 {
            let mut of = vec![0; 1 << precision];
            (of[0], of[1]) = (register, 255);
            assert_eq!(registers::are_registers(&of), register == 0 || seen.contains(&register));
        }
    }
    assert!(!registers::are_registers(&[0; 16]), "registers without an item are tokens");
}

/// Saturated registers, and those of a single kind, have an estimate all the same.
#[test]
fn every_state_has_an_estimate() {
    for precision in [PRECISION_MIN, 12] {
        for register in (0..=255_u8).filter(|r| registers::are_registers(&vec![*r; 1 << precision]))
        {
            let state = Distinct { form: Form::Registers(vec![register; 1 << precision].into()) };
            let estimate = state.estimate();
            assert!(estimate.value >= 1_025.0 && estimate.value <= HASHES, "{estimate:?}");
            assert!(estimate.lower <= estimate.value && estimate.value <= estimate.upper);
        }
    }
}
