// The forms a contraction takes; `ops/contract.cpp` chooses. Each returns the floating-point flags
// that were raised (machine bits).
#pragma once

#include "ops/contract_plan.hpp"

namespace unitstride {

// Packed panels: any contraction, at the speed of the multiplication where that is what takes time.
unsigned contract_packed(const ContractPlan& plan);

// The same of few elements with long sums, for which threads share the sums.
bool has_long_sums(const ContractPlan& plan);
unsigned contract_long_sums(const ContractPlan& plan);

// Matrices read where they lie, for those that stay in a cache.
bool can_be_direct(const ContractPlan& plan);
unsigned contract_direct(const ContractPlan& plan);
// The same with a copy of B, which is small and lies in other ways. False: it is not worth it.
bool direct_with_copy(const ContractPlan& plan, unsigned& raised);

// What memory limits: one of rows, columns and depth is missing.
bool can_be_streamed(const ContractPlan& plan);
unsigned contract_streaming(const ContractPlan& plan);

// Few rows, and B in another order than C: slabs of B are brought into that order.
bool needs_slabs(const ContractPlan& plan);
unsigned contract_slabs(const ContractPlan& plan);

}  // namespace unitstride
