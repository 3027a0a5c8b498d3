// Few bits of optimisers, on lines of float.
//
// A byte stands for one of 256 values in [-1, 1] or [0, 1], times the magnitude of its block: zero,
// the middles of equal intervals in each of seven decades, and one. The nearest one is looked up by
// the upper bits of the float, with one comparison. T. Dettmers et al., arXiv:2110.02861.
//
// Accuracy: the bits of the twin `_reference/optim_narrow.py`, at every level: each operation is
// rounded by itself.
#include "kernels/optim_narrow.hpp"

#include "kernels/table.hpp"
#include "simd/storage.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

constexpr int decades = 7;
constexpr double sizes[decades] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};

// Shares from 2^-23 to 2, by the upper 16 bits of their floats: 128 buckets to a power of two, each
// with one threshold at most.
constexpr std::int32_t first_bucket = (127 - 23) << 7;
constexpr int buckets = 24 << 7;

struct ByteTable {
    float code[256];              // the value of each byte
    std::uint32_t step[buckets];  // the lower bits of the threshold, then the magnitude below it
    bool is_sound;                // no bucket has two thresholds
};

constexpr ByteTable make_table(bool is_signed) {
    ByteTable table = {};
    float magnitude[256] = {};  // that of zero first
    int known = 1;
    for (int d = 0; d < decades; ++d) {
        const int count = (is_signed ? 1 : 2) << d;
        for (int j = 0; j < count; ++j) {
            const double middle = static_cast<double>(2 * j + 1) / (2 * count);
            magnitude[known++] = static_cast<float>(sizes[d] * (0.1 + 0.9 * middle));
        }
    }
    magnitude[known] = 1.0f;
    table.is_sound = true;
    int below = 0;  // thresholds that are passed
    for (int b = 0; b < buckets; ++b) {
        table.step[b] = 0xffff0000u + static_cast<std::uint32_t>(below);  // above all
        for (bool is_first = true; below < known; is_first = false) {
            const double middle = (static_cast<double>(magnitude[below]) +
                                   static_cast<double>(magnitude[below + 1])) /
                                  2;
            const auto bits = __builtin_bit_cast(std::int32_t, static_cast<float>(middle));
            if ((bits >> 16) > first_bucket + b) break;
            if ((bits >> 16) < first_bucket + b || !is_first) table.is_sound = false;
            table.step[b] =
                (static_cast<std::uint32_t>(bits) << 16) + static_cast<std::uint32_t>(below++);
        }
    }
    const int zero = is_signed ? 127 : 0;
    for (int code = 0; code < 256; ++code)
        table.code[code] = code < zero ? -magnitude[zero - code] : magnitude[code - zero];
    return table;
}

constexpr ByteTable tables[2] = {make_table(false), make_table(true)};
static_assert(tables[0].is_sound && tables[1].is_sound);

inline U32 look_up(const std::uint32_t* table, I32 index) noexcept {
#if defined(__AVX512F__)
    return reinterpret_cast<U32>(
        _mm512_i32gather_epi32(reinterpret_cast<__m512i>(index), table, 4));
#else
    U32 found = {};
    for (size l = 0; l < lanes<float>; ++l) found[l] = table[index[l]];
    return found;
#endif
}

template <bool is_signed>
inline I32 nearest_code(F32 x, F32 inverse) noexcept {
    const F32 share = reinterpret_cast<F32>(reinterpret_cast<I32>(x) & 0x7fffffff) * inverse;
    constexpr std::int32_t last_bits = (first_bucket + buckets) * 65536 - 1;
    I32 bits = reinterpret_cast<I32>(share);
    bits = bits < last_bits ? bits : last_bits - I32{};
    I32 bucket = (bits >> 16) - first_bucket;
    // What is below the first bucket is below its threshold, if it has one.
    const I32 fraction = bucket >= 0 ? bits << 16 : I32{};
    bucket = bucket > 0 ? bucket : I32{};
    const U32 step = look_up(tables[is_signed].step, bucket);
    I32 code = reinterpret_cast<I32>(step & 255u);
    code = reinterpret_cast<U32>(fraction) > step ? code + 1 : code;
    if constexpr (is_signed) {
        const I32 below = code < 127 ? 127 - code : I32{};
        return x < 0.0f ? below : 127 + code;
    } else {
        code = code > 1 ? code : 1 - I32{};  // a divisor that is not zero stays so
        return x > 0.0f ? code : I32{};
    }
}

inline void store_bytes(std::uint8_t* to, I32 code, size count) noexcept {
#if defined(__AVX512F__)
    if (count == lanes<float>) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                         _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(code)));
        return;
    }
#endif
    for (size l = 0; l < count; ++l) to[l] = static_cast<std::uint8_t>(code[l]);
}

// The largest magnitude, or NaN where it is not finite.
inline float largest(const float* line, size count) noexcept {
    I32 high = {};
    for (size i = 0; i < count; i += lanes<float>) {
        const I32 bits = reinterpret_cast<I32>(load(line + i)) & 0x7fffffff;
        high = bits > high ? bits : high;
    }
#if defined(__AVX512F__)
    const std::int32_t highest = _mm512_reduce_max_epi32(reinterpret_cast<__m512i>(high));
#else
    std::int32_t highest = 0;
    for (size l = 0; l < lanes<float>; ++l) highest = high[l] > highest ? high[l] : highest;
#endif
    return __builtin_bit_cast(float, highest < 0x7f800000 ? highest : 0x7fc00000);
}

template <bool is_signed>
void encode(float* line, std::ptrdiff_t count, std::uint8_t* codes, float* scale) noexcept {
    constexpr float most = 0x1.fffffep127f, lift = 0x1p64f;
    const size whole = (count + lanes<float> - 1) / lanes<float> * lanes<float>;
    for (size i = count; i < whole; ++i) line[i] = 0.0f;
    for (size first = 0; first < count; first += byte_block) {
        const size end = count - first < byte_block ? count : first + byte_block;
        const float high = largest(line + first, end - first);
        scale[first / byte_block] = high;
        const bool is_tiny = high < 0x1p-100f;  // its inverse may overflow
        if (is_tiny)
            for (size i = first; i < end; i += lanes<float>) store(line + i, load(line + i) * lift);
        const float ratio = 1.0f / (is_tiny ? high * lift : high);
        const F32 inverse = splat(ratio < most ? ratio : most);
        for (size i = first; i < end; i += lanes<float>)
            store_bytes(codes + i, nearest_code<is_signed>(load(line + i), inverse),
                        end - i < lanes<float> ? end - i : lanes<float>);
    }
}

inline F32 values_of(const float (&table)[256], const std::uint8_t* codes) noexcept {
#if defined(__AVX512F__)
    const auto index =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    return _mm512_i32gather_ps(index, &table[0], 4);
#else
    F32 found = {};
    for (size l = 0; l < lanes<float>; ++l) found[l] = table[codes[l]];
    return found;
#endif
}

template <bool is_signed>
void decode(const std::uint8_t* codes, const float* scale, std::ptrdiff_t count,
            float* line) noexcept {
    constexpr const ByteTable& table = tables[is_signed];
    for (size first = 0; first < count; first += byte_block) {
        const size end = count - first < byte_block ? count : first + byte_block;
        const float high = scale[first / byte_block];
        size i = first;
        for (; i + lanes<float> <= end; i += lanes<float>)
            store(line + i, values_of(table.code, codes + i) * splat(high));
        for (; i < end; ++i) line[i] = table.code[codes[i]] * high;
    }
}

// 16 random bits in the lower half of each lane; multiplications and shifts of C. Wellons.
inline U32 random_bits(U32 index, std::uint64_t key) noexcept {
    U32 x = index ^ static_cast<std::uint32_t>(key);
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) + static_cast<std::uint32_t>(key >> 32);
    return (x * 0x846ca68bu) >> 16;
}

// One of the two neighbours in a type of 16 bits, as a float.
inline U32 drawn(U32 bits, U32 random, const BFloat16*) noexcept {
    return (bits + random) & 0xffff0000u;
}
inline U32 drawn(U32 bits, U32 random, const Float16*) noexcept {
    const U32 normal = (bits + (random >> 3)) & ~0x1fffu;
    // Below 2^-14 neighbours are 2^-24 apart; sums of whole numbers and 13 random bits are exact.
    const U32 magnitude = bits & 0x7fffffffu;
    const U32 in_range = magnitude < 0x38800000u ? magnitude : U32{};
    const F32 noise = __builtin_convertvector(reinterpret_cast<I32>(random >> 3), F32) * 0x1p-13f;
    const F32 sum = reinterpret_cast<F32>(in_range) * 0x1p24f + noise;
    const F32 whole = __builtin_convertvector(__builtin_convertvector(sum, I32), F32);
    const U32 tiny = reinterpret_cast<U32>(whole * 0x1p-24f) | (bits & 0x80000000u);
    return magnitude < 0x38800000u ? tiny : normal;
}

template <class S>
void draw(float* line, std::ptrdiff_t count, std::uint64_t key, std::uint32_t first,
          std::uint32_t step) noexcept {
    U32 index = {};
    for (size l = 0; l < lanes<float>; ++l) index[l] = first + static_cast<std::uint32_t>(l) * step;
    for (size i = 0; i < count; i += lanes<float>) {
        const U32 bits = reinterpret_cast<U32>(load(line + i));
        const U32 magnitude = bits & 0x7fffffffu;
        const U32 nan = (bits & 0x80000000u) | 0x7fc00000u;
        const U32 special = magnitude > 0x7f800000u ? nan : bits;
        const U32 half = drawn(bits, random_bits(index, key), static_cast<const S*>(nullptr));
        const U32 found = magnitude < 0x7f800000u ? half : special;
        store_first(line + i, reinterpret_cast<F32>(found),
                    count - i < lanes<float> ? count - i : lanes<float>);
        index += static_cast<std::uint32_t>(lanes<float>) * step;
    }
}

void add(float* line, const float* rest, std::ptrdiff_t count) noexcept {
    for (size i = 0; i < count; i += lanes<float>) store(line + i, load(line + i) + load(rest + i));
}

void leave(const float* wide, float* kept, std::ptrdiff_t count) noexcept {
    for (size i = 0; i < count; i += lanes<float>) {
        const F32 stays = load(kept + i);
        const I32 magnitude = reinterpret_cast<I32>(stays) & 0x7fffffff;
        store(kept + i, magnitude < 0x7f800000 ? load(wide + i) - stays : F32{});
    }
}

}  // namespace

extern constinit const NarrowKernels narrow_kernels = {
    {decode<false>, decode<true>},
    {encode<false>, encode<true>},
    {nullptr, nullptr, draw<Float16>, draw<BFloat16>},
    add,
    leave};

}  // namespace unitstride::UNITSTRIDE_ISA
