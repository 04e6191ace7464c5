//! Keccak-f\[1600\] of eight or four states at once, in the vectors of x86-64 processors.

use std::{arch::x86_64::*, array};

use crate::lanes::{Permute, STATE_WORDS, States};

/// What each round adds to the first word.
const ROUND_CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808A,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808B,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008A,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000A,
    0x0000_0000_8000_808B,
    0x8000_0000_0000_008B,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800A,
    0x8000_0000_8000_000A,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// The permutation of eight states, where the processor has AVX-512.
pub(crate) fn permute_8() -> Option<Permute<8>> {
    fn permute(states: &mut States<8>) {
        // SAFETY: this function is handed out only after the processor said that it has AVX-512F.
        unsafe { keccak_8(states) }
    }
    is_x86_feature_detected!("avx512f").then_some(permute)
}

/// The permutation of four states, where the processor has AVX2.
pub(crate) fn permute_4() -> Option<Permute<4>> {
    fn permute(states: &mut States<4>) {
        // SAFETY: this function is handed out only after the processor said that it has AVX2.
        unsafe { keccak_4(states) }
    }
    is_x86_feature_detected!("avx2").then_some(permute)
}

/// The 24 rounds over `$state`, an array of vectors. `$xor3` adds three vectors, `$chi` is
/// `a ^ (!b & c)`, `$rotate` turns every word left by a constant, `$all` puts one word in all lanes.
macro_rules! rounds {
    ($state:ident, $xor:ident, $xor3:ident, $chi:ident, $rotate:ident, $all:ident) => {
        for constant in ROUND_CONSTANTS {
            // Theta: the parity of each column is added to its neighbours.
            let parity: [_; 5] = array::from_fn(|x| {
                let upper = $xor3!($state[x], $state[x + 5], $state[x + 10]);
                $xor3!(upper, $state[x + 15], $state[x + 20])
            });
            let turned: [_; 5] = array::from_fn(|x| $rotate!(parity[x], 1));
            macro_rules! theta {
                ($at:literal) => {
                    $xor3!(
                        $state[$at],
                        parity[($at % 5 + 4) % 5],
                        turned[($at % 5 + 1) % 5]
                    )
                };
            }
            // Rho and pi: every word is turned by its own amount and moved.
            macro_rules! rho {
                ($at:literal, $by:literal) => {
                    $rotate!(theta!($at), $by)
                };
            }
            let row_0 = [
                theta!(0),
                rho!(6, 44),
                rho!(12, 43),
                rho!(18, 21),
                rho!(24, 14),
            ];
            let row_1 = [
                rho!(3, 28),
                rho!(9, 20),
                rho!(10, 3),
                rho!(16, 45),
                rho!(22, 61),
            ];
            let row_2 = [
                rho!(1, 1),
                rho!(7, 6),
                rho!(13, 25),
                rho!(19, 8),
                rho!(20, 18),
            ];
            let row_3 = [
                rho!(4, 27),
                rho!(5, 36),
                rho!(11, 10),
                rho!(17, 15),
                rho!(23, 56),
            ];
            let row_4 = [
                rho!(2, 62),
                rho!(8, 55),
                rho!(14, 39),
                rho!(15, 41),
                rho!(21, 2),
            ];
            // Chi: the only step that is not linear, within each row.
            macro_rules! chi_row {
                ($first:literal, $row:ident) => {
                    $state[$first] = $chi!($row[0], $row[1], $row[2]);
                    $state[$first + 1] = $chi!($row[1], $row[2], $row[3]);
                    $state[$first + 2] = $chi!($row[2], $row[3], $row[4]);
                    $state[$first + 3] = $chi!($row[3], $row[4], $row[0]);
                    $state[$first + 4] = $chi!($row[4], $row[0], $row[1]);
                };
            }
            chi_row!(0, row_0);
            chi_row!(5, row_1);
            chi_row!(10, row_2);
            chi_row!(15, row_3);
            chi_row!(20, row_4);
            // Iota.
            $state[0] = $xor($state[0], $all(constant.cast_signed()));
        }
    };
}

#[target_feature(enable = "avx512f")]
fn keccak_8(states: &mut States<8>) {
    // Truth tables of three operands: parity, and `a ^ (!b & c)`.
    macro_rules! xor3 {
        ($a:expr, $b:expr, $c:expr) => {
            _mm512_ternarylogic_epi64::<0x96>($a, $b, $c)
        };
    }
    macro_rules! chi {
        ($a:expr, $b:expr, $c:expr) => {
            _mm512_ternarylogic_epi64::<0xD2>($a, $b, $c)
        };
    }
    macro_rules! rotate {
        ($a:expr, $by:literal) => {
            _mm512_rol_epi64::<$by>($a)
        };
    }
    let words: &mut [[u64; 8]; STATE_WORDS] = &mut states.0;
    // SAFETY: eight words of 64 bits are as many bytes as one vector, and loading asks for no
    // alignment.
    let mut vectors: [__m512i; STATE_WORDS] =
        array::from_fn(|at| unsafe { _mm512_loadu_si512(words[at].as_ptr().cast()) });
    rounds!(
        vectors,
        _mm512_xor_si512,
        xor3,
        chi,
        rotate,
        _mm512_set1_epi64
    );
    for (words, vector) in words.iter_mut().zip(vectors) {
        // SAFETY: as above, for storing.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
    }
}

#[target_feature(enable = "avx2")]
fn keccak_4(states: &mut States<4>) {
    macro_rules! xor3 {
        ($a:expr, $b:expr, $c:expr) => {
            _mm256_xor_si256(_mm256_xor_si256($a, $b), $c)
        };
    }
    macro_rules! chi {
        ($a:expr, $b:expr, $c:expr) => {
            _mm256_xor_si256($a, _mm256_andnot_si256($b, $c))
        };
    }
    macro_rules! rotate {
        ($a:expr, $by:literal) => {{
            let word = $a;
            _mm256_or_si256(
                _mm256_slli_epi64::<$by>(word),
                _mm256_srli_epi64::<{ 64 - $by }>(word),
            )
        }};
    }
    let words: &mut [[u64; 4]; STATE_WORDS] = &mut states.0;
    // SAFETY: four words of 64 bits are as many bytes as one vector, and loading asks for no
    // alignment.
    let mut vectors: [__m256i; STATE_WORDS] =
        array::from_fn(|at| unsafe { _mm256_loadu_si256(words[at].as_ptr().cast()) });
    rounds!(
        vectors,
        _mm256_xor_si256,
        xor3,
        chi,
        rotate,
        _mm256_set1_epi64x
    );
    for (words, vector) in words.iter_mut().zip(vectors) {
        // SAFETY: as above, for storing.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
    }
}
