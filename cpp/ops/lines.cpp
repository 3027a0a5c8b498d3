#include "ops/lines.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "isa/dispatch.hpp"

namespace unitstride {
namespace {

template <class T>
T read(const char* element) noexcept {
    T value;
    std::memcpy(&value, element, sizeof value);
    return value;
}

// A part of a stretch that lies along the innermost axis of the line.
struct Piece {
    std::ptrdiff_t offset, stride, count;
    std::ptrdiff_t done;  // elements of the stretch before it
};

// Calls body(piece) for the pieces of [begin, begin + count) of a line.
template <class Body>
void for_each_piece(const LinesPlan& plan, int operand, std::ptrdiff_t begin, std::ptrdiff_t count,
                    Body&& body) {
    if (plan.line.count == 0) {
        if (count > 0) body(Piece{0, 1, count, 0});
        return;
    }
    const Axis& inner = plan.line.axis[plan.line.count - 1];
    std::ptrdiff_t done = 0;
    while (done < count) {
        std::ptrdiff_t index = (begin + done) / inner.length;
        const std::ptrdiff_t place = (begin + done) % inner.length;
        std::ptrdiff_t offset = place * inner.stride[operand];
        for (int a = plan.line.count - 2; a >= 0; --a) {
            offset += index % plan.line.axis[a].length * plan.line.axis[a].stride[operand];
            index /= plan.line.axis[a].length;
        }
        const std::ptrdiff_t now = std::min(count - done, inner.length - place);
        body(Piece{offset, inner.stride[operand], now, done});
        done += now;
    }
}

char* at(void* tile, std::ptrdiff_t element, Storage storage) noexcept {
    return static_cast<char*>(tile) + element * compute_bytes(storage);
}

}  // namespace

std::ptrdiff_t storage_bytes(Storage storage) noexcept {
    return storage == Storage::float64 ? 8 : storage == Storage::float32 ? 4 : 2;
}
std::ptrdiff_t compute_bytes(Storage storage) noexcept {
    return storage == Storage::float64 ? 8 : 4;
}
Storage compute_storage(Storage storage) noexcept {
    return storage == Storage::float64 ? Storage::float64 : Storage::float32;
}

bool is_nan(const char* element, Storage storage) noexcept {
    switch (storage) {
        case Storage::float32: return std::isnan(read<float>(element));
        case Storage::float64: return std::isnan(read<double>(element));
        case Storage::float16: return (read<std::uint16_t>(element) & 0x7fff) > Float16::infinity;
        case Storage::bfloat16: return (read<std::uint16_t>(element) & 0x7fff) > BFloat16::infinity;
    }
    return false;
}

void store_value(char* element, Storage storage, double value) noexcept {
    if (storage == Storage::float64) {
        std::memcpy(element, &value, sizeof value);
        return;
    }
    const float single = static_cast<float>(value);
    if (storage == Storage::float32) {
        std::memcpy(element, &single, sizeof single);
        return;
    }
    float tile = single;
    const PackTask task = {element, &tile, 1, 1, 1, 1, 1, false};
    kernels().pack[static_cast<int>(storage)].unpack(task);
}

double load_value(const char* element, Storage storage) noexcept {
    if (storage == Storage::float64) return read<double>(element);
    if (storage == Storage::float32) return static_cast<double>(read<float>(element));
    float tile;
    const PackTask task = {element, &tile, 1, 1, 1, 1, 1, false};
    kernels().pack[static_cast<int>(storage)].pack(task);
    return static_cast<double>(tile);
}

bool line_is_contiguous(const LinesPlan& plan, int operand) noexcept {
    return plan.line.count == 0 || (plan.line.count == 1 && plan.line.axis[0].stride[operand] == 1);
}

void pack_stretch(const KernelTable& table, Storage storage, const LinesPlan& plan, int operand,
                  const char* line, std::ptrdiff_t begin, std::ptrdiff_t count, void* tile) {
    for_each_piece(plan, operand, begin, count, [&](const Piece& piece) {
        const char* from = line + piece.offset * storage_bytes(storage);
        table.pack[static_cast<int>(storage)].pack(
            {from, at(tile, piece.done, storage), 1, piece.count, 0, piece.stride, 0, false});
    });
}

void unpack_stretch(const KernelTable& table, Storage storage, const LinesPlan& plan, int operand,
                    char* line, std::ptrdiff_t begin, std::ptrdiff_t count, void* tile,
                    bool streaming) {
    for_each_piece(plan, operand, begin, count, [&](const Piece& piece) {
        const char* to = line + piece.offset * storage_bytes(storage);
        table.pack[static_cast<int>(storage)].unpack(
            {to, at(tile, piece.done, storage), 1, piece.count, 0, piece.stride, 0, streaming});
    });
}

void mask_stretch(const KernelTable& table, Storage storage, const LinesPlan& plan, int operand,
                  const char* line, std::ptrdiff_t begin, std::ptrdiff_t count, void* tile,
                  double fill) {
    for_each_piece(plan, operand, begin, count, [&](const Piece& piece) {
        const auto* mask = reinterpret_cast<const unsigned char*>(line + piece.offset);
        table.pack[static_cast<int>(storage)].mask(
            {mask, at(tile, piece.done, storage), 1, piece.count, 0, piece.stride, 0, fill});
    });
}

bool any_selected(const LinesPlan& plan, int operand, const char* line,
                  std::ptrdiff_t count) noexcept {
    bool found = false;
    for_each_piece(plan, operand, 0, count, [&](const Piece& piece) {
        for (std::ptrdiff_t i = 0; i < piece.count && !found; ++i)
            found = line[piece.offset + i * piece.stride] != 0;
    });
    return found;
}

bool line_holds_nan(const LinesPlan& plan, Storage storage, int operand, const char* line,
                    int mask_operand, const char* mask) noexcept {
    bool found = false;
    // One element at a time: this runs only for lines whose result is NaN.
    for (std::ptrdiff_t i = 0; i < plan.length && !found; ++i) {
        for_each_piece(plan, operand, i, 1, [&](const Piece& piece) {
            found = is_nan(line + piece.offset * storage_bytes(storage), storage);
        });
        if (found && mask != nullptr)
            for_each_piece(plan, mask_operand, i, 1,
                           [&](const Piece& piece) { found = mask[piece.offset] != 0; });
    }
    return found;
}

}  // namespace unitstride
