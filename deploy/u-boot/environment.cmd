# Tern's environment for a U-Boot that has none of its own in two copies: loads it, and defines tern_save.
#
# Not needed where U-Boot is built with CONFIG_SYS_REDUNDAND_ENVIRONMENT (CONFIG_ENV_REDUNDANT since 2025): there it
# does the same by itself, and boot.cmd saves by saveenv. Source this one first, then boot.cmd.
#
# The bytes are U-Boot's own: CRC-32, flag, data. fw_printenv, fw_setenv and the agent read and write the same. The copy
# that counts is chosen as U-Boot chooses: of two whole ones the greater flag, 0 after 255, the first of two equal ones.
#
# What the board supplies, numbers hexadecimal:
#   tern_medium     command that reads and writes blocks of the selected device: virtio, mmc, ...
#   tern_first      first block of the first copy        tern_second     of the second
#   tern_blocks     blocks of a copy                     tern_size       bytes of a copy
#   tern_ram        address with room for four copies and CONFIG_ENV_SIZE
#   tern_keep       names of more variables to keep; all others are gone once the script has saved

setexpr tern_data ${tern_size} - 1
setexpr tern_text ${tern_size} - 5
setexpr tern_b ${tern_ram} + ${tern_size}
setexpr tern_c ${tern_b} + ${tern_size}
setexpr tern_d ${tern_c} + ${tern_size}
setexpr tern_flag_a ${tern_ram} + 4
setexpr tern_flag_b ${tern_b} + 4

# Only what is ours is taken over: a script must not come out of a partition that more can write.
setenv tern_names "tern_active tern_trial tern_tries tern_trial_rc tern_installed ${tern_keep}"

# The checksum leaves the flag out and U-Boot's import does not know it: it gets checksum and text side by side.
# tern_from: a copy; after it tern_c holds checksum and text.
setenv tern_strip 'cp.b ${tern_from} ${tern_c} 4; setexpr tern_x ${tern_from} + 5; setexpr tern_y ${tern_c} + 4; cp.b ${tern_x} ${tern_y} ${tern_text}'

setenv tern_valid_a
setenv tern_valid_b
if ${tern_medium} read ${tern_ram} ${tern_first} ${tern_blocks}; then
  setenv tern_from ${tern_ram}
  run tern_strip
  if env import -c ${tern_c} ${tern_data} tern_none; then setenv tern_valid_a 1; fi
fi
if ${tern_medium} read ${tern_b} ${tern_second} ${tern_blocks}; then
  setenv tern_from ${tern_b}
  run tern_strip
  if env import -c ${tern_c} ${tern_data} tern_none; then setenv tern_valid_b 1; fi
fi

setenv tern_newest
if test -n "${tern_valid_a}"; then setenv tern_newest a; fi
if test -n "${tern_valid_b}"; then
  if test -z "${tern_valid_a}"; then
    setenv tern_newest b
  else
    if itest.b *${tern_flag_b} -gt *${tern_flag_a}; then setenv tern_newest b; fi
    if itest.b *${tern_flag_a} == ff; then if itest.b *${tern_flag_b} == 0; then setenv tern_newest b; fi; fi
    if itest.b *${tern_flag_b} == ff; then if itest.b *${tern_flag_a} == 0; then setenv tern_newest a; fi; fi
  fi
fi
echo "tern: environment: first whole ${tern_valid_a}, second whole ${tern_valid_b}, newest ${tern_newest}"

# The record is what the medium says, and nothing that was there before.
setenv tern_active
setenv tern_trial
setenv tern_tries
setenv tern_trial_rc
setenv tern_installed
setenv tern_flag 0
if test "${tern_newest}" = a; then
  setenv tern_from ${tern_ram}
  setexpr.b tern_flag *${tern_flag_a}
fi
if test "${tern_newest}" = b; then
  setenv tern_from ${tern_b}
  setexpr.b tern_flag *${tern_flag_b}
fi
if test -n "${tern_newest}"; then
  run tern_strip
  env import -c ${tern_c} ${tern_data} ${tern_names}
fi

# Saves over the copy that does not count: one write, after which that one counts. Where it fails, the other one still
# does. Read back: what the medium does not keep was not saved. tern_next: flag, checksum and text at their places.
setenv tern_next 'setexpr tern_flag 0x${tern_flag} + 1; if itest 0x${tern_flag} == 100; then setenv tern_flag 0; fi; cp.b ${tern_c} ${tern_d} 4; setexpr tern_x ${tern_d} + 4; mw.b ${tern_x} ${tern_flag} 1; setexpr tern_x ${tern_d} + 5; setexpr tern_y ${tern_c} + 4; cp.b ${tern_y} ${tern_x} ${tern_text}'
setenv tern_save 'if env export -c -s ${tern_data} ${tern_c} ${tern_names}; then run tern_next; if test "${tern_newest}" = a; then setenv tern_newest b; setenv tern_to ${tern_second}; else setenv tern_newest a; setenv tern_to ${tern_first}; fi; if ${tern_medium} write ${tern_d} ${tern_to} ${tern_blocks}; then ${tern_medium} read ${tern_c} ${tern_to} ${tern_blocks}; cmp.b ${tern_c} ${tern_d} ${tern_size}; else false; fi; else false; fi'
