"""The C interface of the engine and of the allocator under it, as cffi sees them.

The engine's extension module is loaded as a plain library, not imported: that would start a thread, and the zygote must
have one only.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Final

import cffi

_DECLARATIONS: Final = """
typedef struct { uint64_t u; int64_t tag; } JSValue;
typedef struct JSRuntime JSRuntime;
typedef struct JSContext JSContext;
typedef struct JSModuleDef JSModuleDef;
typedef JSValue JSCFunctionData(JSContext *, JSValue, int, JSValue *, int, JSValue *);
typedef JSModuleDef *JSModuleLoaderFunc(JSContext *, const char *, void *);
typedef int JSInterruptHandler(JSRuntime *, void *);
const char *JS_GetVersion(void);
JSRuntime *JS_NewRuntime(void);
void JS_FreeRuntime(JSRuntime *);
void JS_SetMemoryLimit(JSRuntime *, size_t);
void JS_SetMaxStackSize(JSRuntime *, size_t);
void JS_SetInterruptHandler(JSRuntime *, JSInterruptHandler *, void *);
void JS_SetModuleLoaderFunc(JSRuntime *, void *, JSModuleLoaderFunc *, void *);
void JS_RunGC(JSRuntime *);
int JS_ExecutePendingJob(JSRuntime *, JSContext **);
bool JS_IsJobPending(JSRuntime *);
JSContext *JS_NewContext(JSRuntime *);
void JS_FreeContext(JSContext *);
JSValue JS_Eval(JSContext *, const char *, size_t, const char *, int);
JSValue JS_EvalFunction(JSContext *, JSValue);
JSValue JS_GetModuleNamespace(JSContext *, JSModuleDef *);
int JS_ResolveModule(JSContext *, JSValue);
uint8_t *JS_WriteObject(JSContext *, size_t *, JSValue, int);
JSValue JS_ReadObject(JSContext *, const uint8_t *, size_t, int);
void js_free(JSContext *, void *);
JSValue JS_GetException(JSContext *);
bool JS_HasException(JSContext *);
JSValue JS_ThrowOutOfMemory(JSContext *);
JSValue JS_ThrowReferenceError(JSContext *, const char *, ...);
JSValue JS_ThrowInternalError(JSContext *, const char *, ...);
JSValue JS_Call(JSContext *, JSValue, JSValue, int, JSValue *);
JSValue JS_GetPropertyStr(JSContext *, JSValue, const char *);
int JS_SetPropertyStr(JSContext *, JSValue, const char *, JSValue);
JSValue JS_NewObject(JSContext *);
JSValue JS_NewStringLen(JSContext *, const char *, size_t);
JSValue JS_ParseJSON(JSContext *, const char *, size_t, const char *);
const char *JS_ToCStringLen2(JSContext *, size_t *, JSValue, bool);
void JS_FreeCString(JSContext *, const char *);
void JS_FreeValue(JSContext *, JSValue);
JSValue JS_DupValue(JSContext *, JSValue);
JSValue JS_NewCFunctionData(JSContext *, JSCFunctionData *, int, int, int, JSValue *);
"""

TAG_STRING: Final = -7
TAG_ROPE: Final = -6
TAG_MODULE: Final = -3
TAG_OBJECT: Final = -1
TAG_INT: Final = 0
TAG_BOOL: Final = 1
TAG_NULL: Final = 2
TAG_UNDEFINED: Final = 3
TAG_EXCEPTION: Final = 6
TAG_FLOAT: Final = 8

EVAL_GLOBAL: Final = 0
EVAL_MODULE: Final = 1
EVAL_COMPILE_ONLY: Final = 1 << 5
BYTECODE: Final = 1

ENGINE_VERSION: Final = "0.17"

Value = Any
"""A `JSValue` struct as cffi gives it."""

_HEAP_WORD: Final = 6
_LIMIT_WORD: Final = 7
"""Where a runtime keeps the size of its heap and the limit of it: the words after its five allocator functions."""
_MARK: Final = 0x5EED_5EED


def _library() -> Any:
    spec = importlib.util.find_spec("_quickjs")
    if spec is None or spec.origin is None:
        raise ImportError("the quickjs-ng extension module is not installed")
    loaded = ffi.dlopen(spec.origin)
    version = ffi.string(loaded.JS_GetVersion()).decode()
    if not version.startswith(ENGINE_VERSION + "."):
        raise ImportError(f"QuickJS-ng {version} is not {ENGINE_VERSION}.x, whose C interface this module declares")
    runtime = loaded.JS_NewRuntime()
    loaded.JS_SetMemoryLimit(runtime, _MARK)
    words = ffi.cast("uint64_t *", runtime)
    known = words[_LIMIT_WORD] == _MARK and 0 < words[_HEAP_WORD] < _MARK
    loaded.JS_FreeRuntime(runtime)
    if not known:
        raise ImportError(f"QuickJS-ng {version} keeps the size of its heap somewhere else on this machine")
    return loaded


ffi = cffi.FFI()
ffi.cdef(_DECLARATIONS)
lib = _library()

UNDEFINED: Final = (0, TAG_UNDEFINED)
EXCEPTION: Final = (0, TAG_EXCEPTION)


def heap_bytes(runtime: Any) -> int:
    """Bytes that a runtime has allocated now. The engine's own count: to ask for its statistics would walk the heap."""
    return int(ffi.cast("uint64_t *", runtime)[_HEAP_WORD])
