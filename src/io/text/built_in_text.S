/* The bytes of the built-in calibration text. MICA_CALIBRATION_TEXT: path of the file. */
        .section .rodata
        .global mica_calibration_text
        .global mica_calibration_text_end
        .balign 16
mica_calibration_text:
        .incbin MICA_CALIBRATION_TEXT
mica_calibration_text_end:
        .byte 0
        .section .note.GNU-stack, "", %progbits
