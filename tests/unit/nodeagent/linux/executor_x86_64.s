run:    mov   %rdi, %rdx            # rdx = program
        lea   32(%rdx), %rdi        # clone_args
        mov   $88, %esi
        mov   $435, %eax
        syscall                     # clone3
        test  %rax, %rax
        jz    child
        ret                         # the parent, after the child's execve or end: pid or -errno
child:  mov   %rdx, %rbx
        mov   8(%rbx), %r12         # r12 = row
next:   cmp   16(%rbx), %r12
        jae   done
        mov   4(%r12), %ecx         # mask: argument i is the address of its value
        mov   8(%r12), %rdi
        test  $1, %cl
        jz    1f
        mov   (%rdi), %rdi
1:      mov   16(%r12), %rsi
        test  $2, %cl
        jz    1f
        mov   (%rsi), %rsi
1:      mov   24(%r12), %rdx
        test  $4, %cl
        jz    1f
        mov   (%rdx), %rdx
1:      mov   32(%r12), %r10
        test  $8, %cl
        jz    1f
        mov   (%r10), %r10
1:      mov   40(%r12), %r8
        test  $16, %cl
        jz    1f
        mov   (%r8), %r8
1:      mov   48(%r12), %r9
        test  $32, %cl
        jz    1f
        mov   (%r9), %r9
1:      mov   (%r12), %eax
        syscall
        mov   %rax, 64(%r12)        # result
        test  %rax, %rax
        jns   ok
        neg   %eax
        lea   56(%r12), %rsi        # forgiven errnos
        mov   $4, %ecx
1:      movzwl (%rsi), %edx
        cmp   $0xffff, %edx
        je    ok
        cmp   %eax, %edx
        je    ok
        add   $2, %rsi
        dec   %ecx
        jnz   1b
        mov   %r12, 24(%rbx)        # this row failed
        mov   $126, %edi
        jmp   exit
ok:     add   $72, %r12
        jmp   next
done:   xor   %edi, %edi
exit:   mov   $231, %eax
        syscall                     # exit_group
