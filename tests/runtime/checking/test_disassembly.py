"""What is read from an assembly, on a text short enough to count by hand."""

from pathlib import Path
from types import SimpleNamespace

from newtriton.kernels import contraction
from newtriton.runtime.checking.disassembly import Report, _function_at, _loops, _waits, read

ASSEMBLY = """
kernel:
	s_branch .LBB0_2
.LBB0_0:
	s_endpgm
.LBB0_2:
	scratch_store_dword off, v7, off        ; 4-byte Folded Spill
.LBB0_1:                                ; %loop
                                        ; =>This Inner Loop Header: Depth=1
	buffer_load_dwordx4 v[2:5], v18, s[12:15], 0 offen
	global_load_ushort v6, v[8:9], off
	v_writelane_b32 v70, s3, 0
	v_mfma_f32_32x32x4_xf32 a[0:15], v[2:3], v[4:5], a[0:15]
	s_cbranch_scc1 .LBB0_1
	scratch_load_dword v7, off, off         ; 4-byte Folded Reload
	global_store_dwordx2 v[8:9], v[2:3], off
	s_cbranch_execz .LBB0_0
	v_fmac_f32_e32 v1, v2, v3
	.amdgpu_metadata
  - .agpr_count:     16
    .private_segment_fixed_size: 4
    .sgpr_spill_count: 1
    .vgpr_count:     88
    .vgpr_spill_count: 1
"""


def test_an_assembly_of_amd():
    found = Report("kernel", "gfx942")
    code = {"ttgir": "", "amdgcn": ASSEMBLY}
    read(found, SimpleNamespace(asm=code, metadata=SimpleNamespace(shared=1024)))
    assert (found.registers, found.shared, found.instruction) == (88, 1024, "MFMA xf32")
    assert (found.spills, found.looped, found.loop) == (2, 1, 5)
    assert found.loads == {16: 1, 2: 1, 8: 1} and not found.copies


# A turn starts two products, waits for the first of the turn before, then for its own.
TCGEN05 = """
  ttng.wait_barrier %first : !ttg.memdesc<1xi64>
  %out:2 = scf.for %i = %lo to %hi step %one iter_args(%old = %first, %phase = %zero) {
    ttg.async_wait %a, %b {num = 2 : i32}
    ttng.tc_gen5_mma %a, %b, %acc, %true, %true, %bar_1[%true] {is_async} : !ttg.memdesc<64x32xf32>
    ttng.tc_gen5_mma %a, %c, %sum, %true, %true, %bar_2[%true] {is_async} : !ttg.memdesc<64x32xf32>
    ttng.wait_barrier %old, %phase deps %a : !ttg.memdesc<1xi64>
    ttng.wait_barrier %bar_1, %phase deps %a : !ttg.memdesc<1xi64>
    ttng.wait_barrier %bar_2, %phase : !ttg.memdesc<1xi64>
    scf.yield %bar_1, %phase
  }
"""


def test_barriers_of_tensor_memory_say_what_is_pending():
    assert _waits(TCGEN05) == {"copy": [2], "product": [2, 1, 0]}


def test_a_loop_is_what_reaches_its_end_wherever_it_lies():
    places = list(range(9))
    jumps = [(2, 7), (4, 1), (5, 8), (7, 3), (8, 6)]  # 7 waits for 2, and goes on at 3
    assert _loops(places, jumps, {6, 7, 8}) == [{1, 2, 3, 4, 7}]


def test_functions_are_found_where_the_skeletons_lie_now():
    lines = Path(contraction.__file__).read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if text.startswith("def contraction("))
    assert _function_at("/elsewhere/kernels/contraction.py", line) == "contraction"
    assert _function_at("/elsewhere/gone.py", 3) == ""
