"""The terms of scenes in English and Chinese."""

_CHINESE = {
    "yes": "是的", "no": "不是", "none": "无", "X-Ray": "X光", "MRI": "核磁共振", "CT": "CT",
    "Microscopy": "显微镜", "chest": "胸部", "head": "头部", "abdomen": "腹部", "tissue": "组织",
    "top": "上方", "bottom": "下方", "left": "左侧", "right": "右侧", "top left": "左上",
    "top right": "右上", "bottom left": "左下", "bottom right": "右下", "nodule": "结节",
    "effusion": "积液", "bright lesion": "亮病灶", "dark lesion": "暗病灶", "cyst": "囊肿", "stone": "结石",
    "left lung": "左肺", "right lung": "右肺", "left hemisphere": "左半球", "right hemisphere": "右半球",
    "liver": "肝脏", "left kidney": "左肾", "right kidney": "右肾", "small": "小", "large": "大",
    "heart": "心脏", "ventricle": "脑室", "spleen": "脾脏", "normal": "正常", "enlarged": "增大",
    "pink": "粉色", "purple": "紫色", "blue": "蓝色", "brown": "棕色", "round": "圆形", "spindle": "梭形",
    "marker": "标记", "abnormality": "异常", "stain": "染色", "cells": "细胞", "modality": "成像方式",
    "body part": "部位", "site": "位置", "size": "大小", "count": "数量", "shape": "形状",
    "true": "正确", "false": "错误",
}  # fmt: skip


def said(term: str, language: str) -> str:
    """A term in the language's words; numbers stay as they are."""
    return _CHINESE.get(term, term) if language == "zh" else term


def title(term: str, language: str) -> str:
    """A term as an answer."""
    word = said(term, language)
    return word[0].upper() + word[1:]
