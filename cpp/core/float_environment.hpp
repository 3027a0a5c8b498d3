// The floating-point environment of kernels: round to nearest, subnormals kept, nothing trapped,
// whatever the caller has set; the caller's own state, sticky flags included, is put back.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

namespace unitstride {

class FloatEnvironment {
  public:
    FloatEnvironment() noexcept : saved_(read()) { write(standard); }
    ~FloatEnvironment() { write(saved_); }
    FloatEnvironment(const FloatEnvironment&) = delete;
    FloatEnvironment& operator=(const FloatEnvironment&) = delete;

    // Exceptions raised since construction, as the machine's flag bits.
    unsigned raised() const noexcept { return read_flags(); }
    static constexpr bool has_overflow(unsigned raised_bits) noexcept {
        return (raised_bits & overflow_bit) != 0;
    }
    static constexpr bool has_invalid(unsigned raised_bits) noexcept {
        return (raised_bits & invalid_bit) != 0;
    }
    // Whether the calling thread flushes subnormals, as some fast-math libraries make it do on
    // import.
    static bool flushes_subnormals() noexcept { return (read() & flush_bits) != 0; }

    static unsigned long control_word() noexcept { return static_cast<unsigned long>(read()); }

  private:
#if defined(__x86_64__)
    using State = unsigned;
    static constexpr State standard = 0x1f80, flush_bits = 0x8040;
    static constexpr unsigned overflow_bit = 0x08, invalid_bit = 0x01;
    static State read() noexcept { return _mm_getcsr(); }
    static void write(State state) noexcept { _mm_setcsr(state); }
    static unsigned read_flags() noexcept { return _mm_getcsr() & 0x3f; }
#elif defined(__aarch64__)
    using State = std::uint64_t;
    static constexpr State standard = 0, flush_bits = State{1} << 24;
    static constexpr unsigned overflow_bit = 0x04, invalid_bit = 0x01;
    static State read() noexcept { return __builtin_aarch64_get_fpcr64(); }
    static void write(State state) noexcept { __builtin_aarch64_set_fpcr64(state); }
    static unsigned read_flags() noexcept {
        return static_cast<unsigned>(__builtin_aarch64_get_fpsr64()) & 0x1f;
    }
#else
    using State = unsigned;
    static constexpr State standard = 0, flush_bits = 0;
    static constexpr unsigned overflow_bit = 0, invalid_bit = 0;
    static State read() noexcept { return 0; }
    static void write(State) noexcept {}
    static unsigned read_flags() noexcept { return 0; }
#endif
    State saved_;
};

}  // namespace unitstride
