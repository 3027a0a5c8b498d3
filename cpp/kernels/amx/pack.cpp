// Packing of tensors of any strides into panels of bfloat16 parts: see panel.hpp.
#include "kernels/amx/matrix_unit.hpp"
#include "kernels/amx/parts.hpp"
#include "kernels/gemm_pack.hpp"

namespace unitstride::UNITSTRIDE_ISA {
namespace {

// Where up to 16 elements lie: in a few pieces of memory, with one element left out after each, or
// anywhere.
constexpr int most_pieces = 4, all_second = 5, scattered = 6;
struct Places {
    const size* offset;
    size count;
    int pieces;
    __mmask16 mask[most_pieces];  // the lanes of a piece
    size shifted[most_pieces];    // its offset, less its first lane
    bool loads() const noexcept { return pieces < scattered; }
};
inline Places places_of(const size* offset, size count) noexcept {
    Places places = {offset, count, 0, {}, {}};
    bool contiguous = count > 0;
    for (size i = 1; i < count; ++i) contiguous &= offset[i] == offset[0] + i;
    if (contiguous) {
        places.pieces = 1;
        places.mask[0] = static_cast<__mmask16>((1u << count) - 1);
        places.shifted[0] = offset[0];
        return places;
    }
    for (size i = 0; i < count; ++i) {
        if (i == 0 || offset[i] != offset[i - 1] + 1) {
            if (places.pieces == most_pieces) {
                bool second = count == side;
                for (size k = 1; k < count; ++k) second &= offset[k] == offset[0] + 2 * k;
                places.pieces = second ? all_second : scattered;
                return places;
            }
            places.mask[places.pieces] = 0;
            places.shifted[places.pieces++] = offset[i] - i;
        }
        __mmask16& mask = places.mask[places.pieces - 1];
        mask = static_cast<__mmask16>(mask | 1u << i);
    }
    return places;
}
// Of up to 32 elements, those before and from the 16th on.
inline Places first_half(const size* offset, size count) noexcept {
    return places_of(offset, count < side ? count : side);
}
inline Places second_half(const size* offset, size count) noexcept {
    return places_of(offset + side, count > side ? count - side : 0);
}

inline F32 load_masked(const float* from, __mmask16 mask) noexcept {
    return _mm512_maskz_loadu_ps(mask, from);
}
inline F32 load_masked(const Float16* from, __mmask16 mask) noexcept {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
}
inline F32 load_masked(const BFloat16* from, __mmask16 mask) noexcept {
    const auto bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
    return reinterpret_cast<F32>(_mm512_slli_epi32(bits, 16));
}

// The elements at `places`, zeros in the lanes without one.
template <class S>
inline F32 load_lanes(const S* origin, const Places& places) noexcept {
    if (places.pieces == all_second)
        return load_every_second(origin + places.offset[0], std::make_index_sequence<16>{});
    if (places.pieces == 1) return load_masked(origin + places.shifted[0], places.mask[0]);
    U32 bits = {};
    for (int piece = 0; piece < places.pieces; ++piece)
        bits |=
            reinterpret_cast<U32>(load_masked(origin + places.shifted[piece], places.mask[piece]));
    return reinterpret_cast<F32>(bits);
}

// The elements of 16 rows and 16 columns, zeros where there are none.
template <class S>
void load_square(const S* array, const Places& rows, const Places& columns,
                 F32 (&row)[side]) noexcept {
    if (rows.loads() && rows.count > 0) {
        const size step = columns.count > 1 ? columns.offset[1] - columns.offset[0] : 0;
        for (size i = 0; i < columns.count && step > 0; ++i)
            prefetch_second_level(array + columns.offset[i] + rows.offset[0] + step * step_depth);
        for (size i = 0; i < side; ++i)
            row[i] = i < columns.count ? load_lanes(array + columns.offset[i], rows) : F32{};
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
    if (low_columns.loads() && high_columns.loads()) {
        for (size i = 0; i < side; ++i, to += 64) {
            if (i >= rows.count) {
                write_parts<parts_of<S>>(to, F32{}, F32{}, magnitudes);
                continue;
            }
            const S* from = array + rows.offset[i];
            // The step after the next one; it may lie outside: a prefetch does not fault.
            const S* later = from + low_columns.offset[0] + 3 * step_depth;
            prefetch_second_level(later);
            prefetch_second_level(later + 64 / sizeof(S));
            write_parts<parts_of<S>>(to, load_lanes(from, low_columns),
                                     load_lanes(from, high_columns), magnitudes);
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
    if (columns.loads()) {
        for (size i = 0; i < side; ++i, to += 64) {
            F32 low = {}, high = {};
            if (i < low_rows.count) low = load_lanes(array + low_rows.offset[i], columns);
            if (i < high_rows.count) high = load_lanes(array + high_rows.offset[i], columns);
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
    // How many elements the next step has; none at the end.
    size next() noexcept {
        size count = 0;
        while (count < step_depth && run_ < task_.along_runs) {
            const Run& run = task_.along[run_];
            offset_[count++] = run.offset + within_ * run.step;
            if (++within_ == run.count) ++run_, within_ = 0;
        }
        return count;
    }
    const size* offset() const noexcept { return offset_; }

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
    const Places blocks[2] = {first_half(across, lines), second_half(across, lines)};
    Steps steps(task);
    for (size count = steps.next(); count > 0; count = steps.next(), to += step_bytes<S>) {
        const Places low = first_half(steps.offset(), count),
                     high = second_half(steps.offset(), count);
        for (size begin = 0; begin < lines; begin += side) {
            const Places& block = blocks[begin / side];
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
    const size* const along = steps.offset();
    for (size count = steps.next(); count > 0; count = steps.next(), to += step_bytes<S>)
        for (size i = 0; i < side; ++i) {
            const bool has_low = i < count, has_high = i + side < count;
            const S* low = array + (has_low ? along[i] : 0);
            const S* high = array + (has_high ? along[i + side] : 0);
            char* row = to + i * 64;
            const S* next_low = array + along[i + 1 < count ? i + 1 : i];
            const S* next_high = next_low + (high - low);
            const size step = count > 1 ? along[1] - along[0] : 0;
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
                const size left = across.count - j;
                const auto mask = static_cast<__mmask16>(left >= side ? 0xffff : (1 << left) - 1);
                write_parts<parts_of<S>>(row, has_low ? load_masked(low + j, mask) : F32{},
                                         has_high ? load_masked(high + j, mask) : F32{},
                                         magnitudes);
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
