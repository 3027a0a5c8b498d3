// Packing of tensors of any strides into panels of bfloat16 parts: see panel.hpp.
#include "kernels/amx/matrix_unit.hpp"
#include "kernels/amx/panel.hpp"
#include "kernels/gemm_pack.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// The largest and smallest magnitudes of bfloat16 seen, zeros aside.
class Magnitudes {
  public:
    void see(F32 low, F32 high, __m512i pairs) noexcept {
        const auto bits = _mm512_add_epi16(pairs, pairs);  // without the signs
        highest_ = _mm512_max_epu16(highest_, bits);
        lowest_ = _mm512_min_epu16(lowest_, _mm512_sub_epi16(bits, _mm512_set1_epi16(1)));
        any_ |= reinterpret_cast<U32>(low) | reinterpret_cast<U32>(high);
    }
    void widen(PowerRange& range) const noexcept {
        const int highest = power_of(0xffff - least_lane(~highest_));
        const int least = least_lane(lowest_);
        if (highest > range.highest) range.highest = highest;
        if (least < 0xffff && power_of(least + 1) < range.lowest)
            range.lowest = power_of(least + 1);
        const auto any = reinterpret_cast<__m512i>(any_);
        if (_mm512_test_epi32_mask(any, _mm512_set1_epi32(0xffff)) != 0) range.lowest = -128;
    }

  private:
    static int power_of(int doubled_bits) noexcept { return (doubled_bits >> 8) - 127; }
    static int least_lane(__m512i v) noexcept {
        const auto half =
            _mm256_min_epu16(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
        const auto quarter =
            _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        return _mm_extract_epi16(_mm_minpos_epu16(quarter), 0);
    }

    U32 any_ = {};  // bits below those of a bfloat16: subnormals have no head
    __m512i highest_ = _mm512_setzero_si512(), lowest_ = _mm512_set1_epi16(-1);
};

// v rounded to the eight bits of a bfloat16.
inline F32 head_of(F32 v) noexcept {
    const F32 scaled = v * splat(65537.0f);
    return scaled - (scaled - v);
}

// Two bfloat16 in each lane, from the upper halves of floats.
inline __m512i pairs_of(F32 low, F32 high) noexcept {
    return reinterpret_cast<__m512i>((reinterpret_cast<U32>(low) >> 16) |
                                     reinterpret_cast<U32>(high));
}

// A row of each part's square.
template <size parts>
inline void write_parts(char* to, F32 low, F32 high, Magnitudes& magnitudes) noexcept {
    for (size part = 0;; to += part_bytes) {
        const bool is_last = ++part == parts;
        const F32 low_head = is_last ? low : head_of(low),
                  high_head = is_last ? high : head_of(high);
        const auto pairs = pairs_of(low_head, high_head);
        if (part == 1)
            magnitudes.see(low_head, high_head,
                           pairs);  // the first part is as large as the element
        _mm512_storeu_si512(to, pairs);
        if (is_last) return;
        low = low - low_head;
        high = high - high_head;
    }
}

template <class S>
inline F32 load_up_to(const S* source, size count) noexcept {
    if (count >= side) return load_as(source);
    return count > 0 ? load_first_as(source, count, 0.0f) : F32{};
}

// Where the elements of one side of a square lie, and whether one after the other.
struct Places {
    const size* offset;
    size count;
    bool contiguous;
};
inline Places places_of(const size* offset, size count) noexcept {
    bool contiguous = true;
    for (size i = 1; i < count; ++i) contiguous &= offset[i] == offset[0] + i;
    return {offset, count, contiguous};
}
// The places from 16 on.
inline Places second_half(const Places& places) noexcept {
    return {places.offset + side, places.count > side ? places.count - side : 0, places.contiguous};
}
inline Places first_half(const Places& places) noexcept {
    return {places.offset, places.count < side ? places.count : side, places.contiguous};
}

// The elements of 16 rows and 16 columns, zeros where there are none.
template <class S>
void load_square(const S* array, const Places& rows, const Places& columns,
                 F32 (&row)[side]) noexcept {
    if (rows.contiguous && rows.count > 0) {
        const size step = columns.count > 1 ? columns.offset[1] - columns.offset[0] : 0;
        for (size i = 0; i < columns.count && step > 0; ++i)
            prefetch_second_level(array + columns.offset[i] + rows.offset[0] + step * step_depth);
        for (size i = 0; i < side; ++i)
            row[i] = i < columns.count
                         ? load_up_to(array + columns.offset[i] + rows.offset[0], rows.count)
                         : F32{};
        transpose<float>(row);
        return;
    }
    alignas(64) Compute<S> elements[side][side] = {};
    for (size i = 0; i < rows.count; ++i)
        for (size j = 0; j < columns.count; ++j)
            elements[i][j] = load_element(array + rows.offset[i] + columns.offset[j]);
    for (size i = 0; i < side; ++i) row[i] = load(elements[i]);
}

// One square of pairs: `low` and `high` are what its rows (or columns) consist of.
template <class S>
inline void pack_rows_of_square(const S* array, const Places& rows, const Places& low_columns,
                                const Places& high_columns, char* to,
                                Magnitudes& magnitudes) noexcept {
    if (low_columns.contiguous) {
        for (size i = 0; i < side; ++i, to += 64) {
            const S* from = array + (i < rows.count ? rows.offset[i] : 0) + low_columns.offset[0];
            const bool is_row = i < rows.count;
            // The step after the next one; it may lie outside: a prefetch does not fault.
            prefetch_second_level(from + 3 * step_depth);
            prefetch_second_level(from + 3 * step_depth + 64 / sizeof(S));
            write_parts<parts_of<S>>(to, load_up_to(from, is_row ? low_columns.count : 0),
                                     load_up_to(from + side, is_row ? high_columns.count : 0),
                                     magnitudes);
        }
        return;
    }
    F32 low[side], high[side];
    load_square(array, rows, low_columns, low);
    load_square(array, rows, high_columns, high);
    for (size i = 0; i < side; ++i, to += 64)
        write_parts<parts_of<S>>(to, low[i], high[i], magnitudes);
}

template <class S>
inline void pack_columns_of_square(const S* array, const Places& low_rows, const Places& high_rows,
                                   const Places& columns, char* to,
                                   Magnitudes& magnitudes) noexcept {
    if (columns.contiguous) {
        for (size i = 0; i < side; ++i, to += 64) {
            F32 low = {}, high = {};
            if (i < low_rows.count)
                low = load_up_to(array + low_rows.offset[i] + columns.offset[0], columns.count);
            if (i < high_rows.count)
                high = load_up_to(array + high_rows.offset[i] + columns.offset[0], columns.count);
            write_parts<parts_of<S>>(to, low, high, magnitudes);
        }
        return;
    }
    F32 low[side], high[side];
    load_square(array, low_rows, columns, low);
    load_square(array, high_rows, columns, high);
    for (size i = 0; i < side; ++i, to += 64)
        write_parts<parts_of<S>>(to, low[i], high[i], magnitudes);
}

// Steps of the summed index, one after the other.
class Steps {
  public:
    explicit Steps(const PanelTask& task) noexcept : task_(task) {}
    // The places of the next step, none at the end.
    Places next() noexcept {
        size count = 0;
        while (count < step_depth && run_ < task_.along_runs) {
            const Run& run = task_.along[run_];
            offset_[count++] = run.offset + within_ * run.step;
            if (++within_ == run.count) ++run_, within_ = 0;
        }
        return places_of(offset_, count);
    }

  private:
    const PanelTask& task_;
    size run_ = 0, within_ = 0;
    size offset_[step_depth];
};

template <class S, bool is_a>
void pack_panel_of_parts(const PanelTask& task, Magnitudes& magnitudes) noexcept {
    const S* array = static_cast<const S*>(task.array);
    size across[panel_lines];
    const size lines = list_lines<panel_lines>(task, across);
    char* to = static_cast<char*>(task.panel);
    Steps steps(task);
    for (Places along = steps.next(); along.count > 0; along = steps.next(), to += step_bytes<S>) {
        const Places low = first_half(along), high = second_half(along);
        for (size begin = 0; begin < lines; begin += side) {
            const size count = lines - begin < side ? lines - begin : side;
            const Places block = places_of(across + begin, count);
            char* const place = to + begin / side * square_bytes;
            if constexpr (is_a) {
                pack_rows_of_square(array, block, low, high, place, magnitudes);
            } else {
                pack_columns_of_square(array, low, high, block, place, magnitudes);
            }
        }
    }
}

template <class S>
void pack_rows(const PanelTask& task) noexcept {
    Magnitudes magnitudes;
    pack_panel_of_parts<S, true>(task, magnitudes);
    magnitudes.widen(*task.range);
}

// Contiguous rows of B to many panels: memory is read in the order in which it lies.
template <class S>
void pack_long_rows(const PanelTask& task, Magnitudes& magnitudes) noexcept {
    const Run across = task.across[0];
    const S* array = static_cast<const S*>(task.array) + across.offset;
    char* to = static_cast<char*>(task.panel);
    Steps steps(task);
    for (Places along = steps.next(); along.count > 0; along = steps.next(), to += step_bytes<S>)
        for (size i = 0; i < side; ++i) {
            const bool has_low = i < along.count, has_high = i + side < along.count;
            const S* low = array + (has_low ? along.offset[i] : 0);
            const S* high = array + (has_high ? along.offset[i + side] : 0);
            char* row = to + i * 64;
            const S* next_low = array + along.offset[i + 1 < along.count ? i + 1 : i];
            const S* next_high = next_low + (high - low);
            const size step = along.count > 1 ? along.offset[1] - along.offset[0] : 0;
            size j = 0;
            if (has_high)
                for (; j + panel_lines <= across.count; j += panel_lines, row += task.panel_bytes)
#pragma GCC unroll 2
                    for (size block = 0; block < 2; ++block) {
                        prefetch(next_low + j + block * side);
                        prefetch(next_high + j + block * side);
                        // The next step comes from memory.
                        prefetch_second_level(low + j + block * side + step * step_depth);
                        prefetch_second_level(high + j + block * side + step * step_depth);
                        write_parts<parts_of<S>>(row + block * square_bytes,
                                                 load_as(low + j + block * side),
                                                 load_as(high + j + block * side), magnitudes);
                    }
            for (; j < across.count; j += side) {
                const size count = across.count - j;
                write_parts<parts_of<S>>(row, load_up_to(low + j, has_low ? count : 0),
                                         load_up_to(high + j, has_high ? count : 0), magnitudes);
                row += j % panel_lines == 0 ? square_bytes : task.panel_bytes - square_bytes;
            }
        }
}

template <class S>
void pack_columns(const PanelTask& task) noexcept {
    Magnitudes magnitudes;
    if (task.across_runs == 1 && task.across[0].step == 1) {
        pack_long_rows<S>(task, magnitudes);
    } else {
        for_each_panel<panel_lines>(
            task, [&](const PanelTask& part) { pack_panel_of_parts<S, false>(part, magnitudes); });
    }
    magnitudes.widen(*task.range);
}

template <class S>
constexpr GemmPackers packers_of = {pack_rows<S>, pack_columns<S>};

}  // namespace

extern constinit const GemmPackers part_packers[element_count] = {
    packers_of<float>, {}, packers_of<Float16>, packers_of<BFloat16>, {}, {}};

}  // namespace unitstride::UNITSTRIDE_ISA
