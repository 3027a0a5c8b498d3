#include "isa/dispatch.hpp"

#include <atomic>

#include "core/error.hpp"
#include "isa/cpu.hpp"

namespace unitstride {
namespace baseline {
extern const KernelTable table;
}
#if defined(UNITSTRIDE_HAS_avx2)
namespace avx2 {
extern const KernelTable table;
}
#endif
#if defined(UNITSTRIDE_HAS_avx512)
namespace avx512 {
extern const KernelTable table;
}
#endif

#if defined(UNITSTRIDE_HAS_amx)
namespace amx {
extern const KernelTable table;
}
#endif

namespace {

struct Level {
    const KernelTable* table;
    bool (*runs)();
};

constexpr Level levels[] = {
    {&baseline::table, [] { return true; }},
#if defined(UNITSTRIDE_HAS_avx2)
    {&avx2::table, [] { return cpu_runs_avx2(); }},
#endif
#if defined(UNITSTRIDE_HAS_avx512)
    {&avx512::table, [] { return cpu_runs_avx512(); }},
#endif
#if defined(UNITSTRIDE_HAS_amx)
    {&amx::table, [] { return cpu_runs_amx(); }},
#endif
};

std::atomic<const KernelTable*> in_use{&baseline::table};

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

}  // namespace

std::vector<std::string> isa_compiled() {
    std::vector<std::string> names;
    for (const Level& level : levels) names.emplace_back(level.table->name);
    return names;
}

std::vector<std::string> isa_detected() {
    std::vector<std::string> names;
    for (const Level& level : levels)
        if (level.runs()) names.emplace_back(level.table->name);
    return names;
}

void use_isa(const std::string& name) {
    const KernelTable* chosen = nullptr;
    for (const Level& level : levels)
        if (level.runs() && (name.empty() || name == level.table->name)) chosen = level.table;
    if (chosen == nullptr)
        throw Error(Error::Kind::value, "UNITSTRIDE_ISA: must be one of " + listed(isa_detected()) +
                                            " on this machine, got '" + name +
                                            "' (compiled: " + listed(isa_compiled()) + ")");
    in_use.store(chosen);
}

const KernelTable& kernels() noexcept { return *in_use.load(std::memory_order_relaxed); }

}  // namespace unitstride
