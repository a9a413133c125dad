"""What an operator's arithmetic comes to: one flat table from its name to a handle, open to anybody's own operators.

A handle is a small function of the arguments and the results of one launch. Handles of a family are made by a
factory, so a further operator takes one line. ``None`` stands for operators that move data and compute nothing. An
operator that is not in the table, nor in torch's own (``torch.utils.flop_counter.register_flop_formula``), has no
price: it is counted as a launch, and listed as unpriced.

Prices are real additions and multiplications; a root, an exponential or any other function of one number is one.
Comparisons, roundings and products of indices are none. A convolution is charged for its padding as for data.

Usage::

    @torch.library.custom_op("mylib::scaled_mm", mutates_args=())
    def scaled_mm(a: Tensor, b: Tensor, scale: float) -> Tensor: ...

    register_price("mylib::scaled_mm", lambda args, kwargs, outputs: Price(
        macs=outputs[0].numel() * args[0].shape[-1], flops=outputs[0].numel()
    ))
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from cdvft_bench.counting import handles as h
from cdvft_bench.counting.handles import Handle, Price

__all__ = ["PRICES", "Handle", "Price", "price_of", "register_price", "unregister_price"]


def _table(families: Iterable[tuple[str, Handle | None]]) -> dict[str, Handle | None]:
    return {name: handle for text, handle in families for name in text.split()}


_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)

PRICES: dict[str, Handle | None] = {
    **_table(
        (
            # Moves.
            (
                """
                zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full fill fill_ zero zero_ copy
                copy_ clone _to_copy eye constant_pad_nd slice_backward select_backward index index_put_ index_put
                _conj_physical conj_physical where cat stack gather embedding arange masked_fill masked_fill_
                slice_scatter select_scatter block_diag repeat flip roll tril triu scatter scatter_ native_dropout
                bernoulli bernoulli_ _foreach_copy_ index_select embedding_dense_backward scalar_tensor eq ne lt le gt
                ge logical_and logical_not logical_or logical_xor bitwise_and bitwise_not bitwise_or all any
                diagonal_backward scatter_add cumsum new_empty unfold_backward complex view_as_complex_copy rand randn
                randint randperm normal_ uniform_ conj_physical_ _linalg_check_errors amax amin argmax argmin max min
                topk sort argsort nonzero isnan isinf isfinite round floor ceil trunc masked_select masked_scatter
                masked_scatter_backward tril_indices triu_indices linspace one_hot bincount unique_dim _unique2
                nll_loss_backward nll_loss2d_backward max_pool1d_with_indices max_pool2d_with_indices
                max_pool3d_with_indices reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
                pixel_shuffle channel_shuffle im2col searchsorted bucketize repeat_interleave expand_copy
                permute_copy embedding_sparse_backward _assert_async cummax isin
                _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned _nested_from_padded
                to_padded_tensor histc logical_and_ logical_or_ logical_not_ _is_all_true _is_any_true
                upsample_nearest2d upsample_nearest2d_backward
                max_pool2d_with_indices_backward max_pool3d_with_indices_backward
                """,
                None,
            ),
            # Products.
            ("mm bmm linear mkldnn_linear _int_mm _scaled_mm", h.product(0)),
            ("_grouped_mm _scaled_grouped_mm", h.grouped),
            ("_weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu", h.product(0)),
            ("addmm addmm_ baddbmm baddbmm_ _addmm_activation", h.product(1)),
            ("mv dot vdot", h.of_operand(0)),
            ("addmv addmv_", h.of_operand(1)),
            ("addbmm addbmm_", h.batch_summed),
            ("convolution convolution_overrideable _convolution", h.convolution(6)),
            ("cudnn_convolution mkldnn_convolution miopen_convolution _slow_conv2d_forward", h.convolution(None)),
            ("_conv_depthwise2d conv_depthwise3d slow_conv3d_forward", h.convolution(None)),
            ("convolution_backward", h.convolution_backward),
            (" ".join(_ATTENTION), h.attention(0, 2)),
            # Five products: the scores again, then the gradients of v, of the probabilities, of q and of k.
            (" ".join(f"{name}_backward" for name in _ATTENTION), h.attention(1, 5)),
            ("_native_multi_head_attention", h.native_attention),
            ("_transformer_encoder_layer_fwd", h.encoder_layer),
            ("mkldnn_rnn_layer", h.recurrent_layer(slice(1, 3), 1)),
            ("mkldnn_rnn_layer_backward", h.recurrent_layer(slice(1, 3), 2)),
            # Transforms and systems.
            ("_fft_r2c", h.fft("in")),
            ("_fft_c2r", h.fft("out")),
            ("_fft_c2c", h.fft(None)),
            ("_linalg_solve_ex", lambda a, k, o: Price(flops=h.solve_flops(a[0].shape, a[1].shape, factored=False))),
            ("linalg_lu_solve", lambda a, k, o: Price(flops=h.solve_flops(a[0].shape, a[2].shape, factored=True))),
            # Element by element.
            ("add add_ sub sub_ rsub", h.an_output(1)),
            ("mul mul_", h.times),
            ("div div_", h.over),
            (
                """
                neg neg_ abs sqrt sqrt_ rsqrt exp exp_ exp2 expm1 log log2 log1p tanh tanh_ sigmoid sigmoid_ reciprocal
                pow pow_ square sin cos tan atan2 erf erfinv relu relu_ maximum minimum clamp clamp_ clamp_min
                clamp_max sgn sign threshold_backward leaky_relu leaky_relu_backward hardtanh hardtanh_
                hardtanh_backward angle fmod remainder floor_divide
                """,
                h.an_output(1),
            ),
            ("addcmul addcmul_", h.an_output(2, 8)),  # a product and a sum
            ("addcdiv addcdiv_", h.an_output(2)),
            ("lerp lerp_", h.an_output(3)),
            ("silu silu_", h.an_output(2)),  # a sigmoid, a product
            ("silu_backward", h.an_output(6)),  # g s (1 + x (1 - s))
            ("sigmoid_backward tanh_backward", h.an_output(3)),
            ("gelu gelu_", h.by_form("approximate", {"none": 5, "tanh": 9})),
            ("gelu_backward", h.by_form("approximate", {"none": 11, "tanh": 19})),
            ("elu elu_ softplus hardsigmoid hardswish hardswish_ log_sigmoid_forward", h.an_output(3)),
            ("elu_backward softplus_backward hardsigmoid_backward hardswish_backward", h.an_output(3)),
            ("mish mish_", h.an_output(4)),
            # Subtract, exponentiate, sum, divide (or subtract again); backward two products, a sum, a difference.
            ("_softmax _log_softmax _safe_softmax", h.an_output(4)),
            ("_softmax_backward_data _log_softmax_backward_data", h.an_output(4)),
            ("logsumexp", h.an_input(3)),
            ("sum mean nansum prod cumprod", h.an_input(1)),
            ("linalg_vector_norm norm", h.an_input(2)),
            ("var std var_mean std_mean mse_loss", h.an_input(4)),
            ("mse_loss_backward", h.an_output(2)),
            ("nll_loss_forward nll_loss2d_forward", lambda a, k, o: Price(flops=a[1].numel())),
            ("native_layer_norm", h.norm(2)),
            ("native_group_norm _batch_norm_with_update", h.norm(1)),
            ("native_batch_norm _native_batch_norm_legit cudnn_batch_norm", h.batch_norm),
            ("native_layer_norm_backward", h.norm_backward(5)),
            ("native_group_norm_backward", h.norm_backward(4)),
            ("native_batch_norm_backward", h.norm_backward(2)),
            ("_fused_rms_norm", h.rms_norm),
            ("_fused_rms_norm_backward", h.rms_norm_backward),
            ("avg_pool2d", h.pooled(2)),
            ("avg_pool3d", h.pooled(3)),
            ("index_add index_add_", lambda a, k, o: Price(flops=a[3].numel())),  # entries of the source, added
            ("col2im", h.an_input(1)),
            ("_weight_norm_interface", h.an_input(3)),  # a square, a sum, a product
            ("_weight_norm_interface_backward", h.an_input(6)),
            ("upsample_bilinear2d", h.an_output(7)),  # four products, three sums
            ("upsample_bilinear2d_backward", h.an_input(8)),
            ("avg_pool2d_backward", lambda a, k, o: Price(flops=a[0].numel() * (1 + math.prod(a[2])))),
            ("_adaptive_avg_pool2d _adaptive_avg_pool3d", h.an_input(1)),
            ("_fused_adamw_", h.fused_update),
        )
    ),
}


def register_price(name: str, handle: Handle | None) -> Handle | None:
    """Set the price of an operator, for both counters: by dispatch, and by fvcore.

    Args:
        name: with its namespace, as "mylib::op"; one of ATen's may stand without.
        handle: its price; None where it moves data and computes nothing.

    Returns:
        the handle that it had before, if any, so that it can be put back.
    """
    short = name.removeprefix("aten::")
    before = PRICES.get(short)
    PRICES[short] = handle
    return before


def unregister_price(name: str) -> None:
    """Forget an operator's price, if it has one."""
    PRICES.pop(name.removeprefix("aten::"), None)


def price_of(name: str, func: Any, args: Any, kwargs: Mapping[str, Any], outputs: list[Tensor]) -> Price | None:
    """The price of one launch; None where there is none.

    Args:
        name: of the operator, with its namespace unless it is one of ATen's. func: the overload that was dispatched.
    """
    if name in PRICES:
        handle = PRICES[name]
        return Price() if handle is None else handle(args, kwargs, outputs)
    if name.startswith("_foreach_"):
        return h.many(args, kwargs, outputs)
    from torch.utils.flop_counter import flop_registry

    formula = flop_registry.get(getattr(func, "overloadpacket", func))
    if formula is None:
        return None
    found = outputs[0] if len(outputs) == 1 else tuple(outputs)
    return Price(macs=int(formula(*args, **kwargs, out_val=found)) // 2)
