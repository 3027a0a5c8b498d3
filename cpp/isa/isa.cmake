# Flags that every file gets. No -ffast-math, ever: it changes results and, linked, the whole process.
# Unaligned, a loop that stores past the caches is up to 15 % slower after unrelated changes.
set(unitstride_flags -fno-math-errno -ffp-contract=off -falign-loops=64)
string(REPLACE ";" " " unitstride_flags_text "${unitstride_flags}")

function(unitstride_defaults target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/cpp)
  target_compile_options(${target} PRIVATE ${unitstride_flags} -Wall -Wextra -Wconversion -Wshadow
                                           $<$<BOOL:${UNITSTRIDE_WERROR}>:-Werror>)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON)
endfunction()

# Compiles `sources` once more, as instruction set `isa` with the flags that follow, into `target`. See
# docs/design.md on why each set is an object library without LTO, precompiled headers or unity builds.
function(unitstride_add_isa target isa sources)
  add_library(kernels_${isa} OBJECT ${sources})
  unitstride_defaults(kernels_${isa})
  target_compile_options(kernels_${isa} PRIVATE ${ARGN} -Wno-psabi -Wno-uninitialized -Wno-maybe-uninitialized) # GCC 12 warns inside its own AVX-512 headers
  target_compile_definitions(kernels_${isa} PRIVATE UNITSTRIDE_ISA=${isa})
  set_target_properties(kernels_${isa} PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF DISABLE_PRECOMPILE_HEADERS ON
                                                  UNITY_BUILD OFF)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:kernels_${isa}>)
  target_compile_definitions(${target} PRIVATE UNITSTRIDE_HAS_${isa})
endfunction()
