"""From Python to machine code: numba types a kernel and writes LLVM IR, LLVM makes an object file of it.

numba compiles each function that a kernel calls separately: optimizes it, generates machine code, and optimizes it
again in each caller. A kernel needs only its one entry point, so here functions stay IR until the whole is assembled,
and it is optimized once, which is much faster. LLVM's target need not be this machine; this is what the tests rely on
that compile every kernel for other processors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from numba.core import compiler, registry, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_machinery import PassManager, register_pass

from .target import Target, emitting

__all__ = ["ENTRY_POINTS", "SYMBOL", "compiled", "entry_point", "inlined", "machine_code"]

# No fast-math: sums are written in the order that is meant. No reference counting: kernels own no arrays, and
# numba would count at every call, even in the innermost loop.
_OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "_nrt": False,
    "no_cpython_wrapper": True,
}


class _Text(JITCodeLibrary):
    """One function as IR: not linked with its callees, not optimized, not turned into machine code."""

    def add_llvm_module(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout
        self._final_module.link_in(ll_module)

    def finalize(self) -> None:
        self._raise_if_finalized()
        self._finalized = True

    def linked(self) -> Any:
        """Return a module of the function and everything that it calls."""
        found: dict[Any, None] = {}
        ahead = [self]
        while ahead:
            library = ahead.pop()
            if library not in found:
                found[library] = None
                ahead += library._linking_libraries if isinstance(library, _Text) else ()
        whole = llvm.parse_assembly("")
        for library in found:
            one = library._final_module if isinstance(library, _Text) else library._get_module_for_linking()
            whole.link_in(one, preserve=True)
        return whole


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):
    """numba's lowering, into a :class:`_Text`."""

    _name = "gbn_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Text(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        # numba looks a function up by its Python callable, which must be a built-in one; this one is never called
        key: Any = [].append
        state.targetctx.insert_user_function(key, lowered.fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=key)
        return True


class _Pipeline(compiler.CompilerBase):
    """numba's passes without those for what kernels do not use: array expressions, closures, generators, parfors."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("gbn")
        for one in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.RewriteSemanticConstants,
            untyped_passes.DeadBranchPrune,
            untyped_passes.GenericRewrites,
            untyped_passes.ReconstructSSA,
            untyped_passes.DeadBranchPrune,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            typed_passes.NoPythonSupportedFeatureValidation,
            typed_passes.IRLegalization,
            _Lowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(one, one.__name__)
        passes.finalize()
        return [passes]


class _Function(registry.CPUDispatcher):
    """A function that kernels call, compiled once for all constants of a type: LLVM sees them when it inlines."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        return super().get_call_template(tuple(map(types.unliteral, args)), kws)  # type: ignore[attr-defined]


def _decorator(**options: Any) -> Callable[..., Any]:
    def decorate(function: Any) -> Any:
        made = _Function(function, {}, _OPTIONS | options, _Pipeline)
        made.enable_caching = None  # entry points are cached (.objects), not their parts
        return made

    return decorate


#: For functions that kernels call.
compiled: Callable[..., Any] = _decorator()

#: For the body of a loop that is used twice, where LLVM would otherwise emit a call.
inlined: Callable[..., Any] = _decorator(forceinline=True)


#: Python functions of entry points that do not depend on a number of components, by name (:mod:`.objects`).
ENTRY_POINTS: dict[str, Any] = {}


def entry_point(function: Any) -> Any:
    """Register a plain function ``(address)`` as an entry point."""
    ENTRY_POINTS[f"{function.__module__}:{function.__name__}"] = function
    return function


#: The C function. numba's own wrapper would report exceptions, which kernels never raise, through symbols that exist
#: only where numba is running.
_ENTRY = """
declare i32 @"{name}"(ptr, ptr, i64)

define void @{symbol}(i64 %address) {{
    %result = alloca ptr
    %exception = alloca ptr
    %status = call i32 @"{name}"(ptr %result, ptr %exception, i64 %address)
    ret void
}}
"""
#: Its name in every object file.
SYMBOL = "gbn_entry"


def _text(function: Any) -> Any:
    """Return LLVM's module of an entry point."""
    made = compiled(function)
    made.compile(types.void(types.int64))
    (result,) = made.overloads.values()
    whole = llvm.parse_assembly(_ENTRY.format(name=result.fndesc.llvm_func_name, symbol=SYMBOL))
    whole.link_in(result.library.linked())
    return whole


def machine_code(function: Any, target: Target) -> bytes:
    """Return the object file of ``function(address)`` for a target. A process can do this for one target only."""
    with emitting(target):
        module = _text(function)
    machine = target.machine()
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    for one in module.functions:
        if not one.is_declaration and one.name != SYMBOL:
            # "internal" would let LLVM merge everything into one function, which takes longer to optimize
            one.linkage = llvm.Linkage.linkonce_odr
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    module.verify()
    return machine.emit_object(module)
